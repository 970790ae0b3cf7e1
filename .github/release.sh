#!/usr/bin/env bash
# What a release is made of. The workflow `release` runs this on each system; it runs anywhere.
#
#     bash .github/release.sh build OUT        # OUT/kiln-VERSION-TARGET.tar.gz (.zip on Windows) for this machine
#     bash .github/release.sh check TAG        # whether TAG is this version, and CHANGELOG.md has its section
#     bash .github/release.sh publish TAG OUT  # OUT/SHA256SUMS, and a GitHub release of OUT's archives
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version="$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml)"

fail() {
    echo "error: $*" >&2
    exit 1
}

# This version's section of the changelog, without its heading.
notes() {
    awk -v heading="## [$version]" '/^## / { within = index($0, heading) == 1; next } within' CHANGELOG.md
}

check() {
    [ "$1" = "v$version" ] || fail "the tag is $1, but Cargo.toml has version $version"
    notes | grep -q . || fail "CHANGELOG.md has no section [$version]"
}

# Prints the licenses of the crates in the program: which crate has which, then each text once.
third_party_licenses() {
    local crates
    crates="$(cargo tree --locked --package kiln-cli --target "$1" --edges normal,no-proc-macro --prefix none --format '{p}: {l}')"
    # Kiln's own have a path; what cargo has listed before ends in (*).
    crates="$(sed '/^[^:]* (/d; s/ (\*)$//' <<<"$crates" | sort -u)"
    printf '%s\n\n%s\n' "The program contains these crates, under these licenses." "$crates"
    cd "${CARGO_HOME:-$HOME/.cargo}/registry/src"
    # Paths are registry/crate-version/file.
    find . -mindepth 3 -maxdepth 3 -type f \( -iname 'license*' -o -iname 'licence*' -o -iname 'copying*' -o -iname 'copyright*' -o -iname 'notice*' -o -iname 'unlicense*' \) |
        LC_ALL=C sort |
        crates="$crates" awk -F/ '
            BEGIN {
                count = split(ENVIRON["crates"], lines, "\n")
                for (at = 1; at <= count; at++) {
                    split(lines[at], words, / v|: /)
                    used[words[1] "-" words[2]]
                }
            }
            $3 in used' |
        tr '\n' '\0' | xargs -0 cksum |
        awk '
            {
                split($3, parts, "/")
                text = $1 " " $2
                if (!(text in path)) { order[++count] = text; path[text] = $3 }
                if (index(users[text], parts[3] "\n") == 0) users[text] = users[text] parts[3] "\n"
            }
            END {
                rule = "--------------------------------------------------------------------------------"
                for (at = 1; at <= count; at++) {
                    text = order[at]
                    printf "\n%s\n%s%s\n\n", rule, users[text], rule
                    while ((getline line < path[text]) > 0) print line
                    close(path[text])
                }
            }'
}

build() {
    local out="$1" target name folder program
    target="$(rustc -vV | sed -n 's/^host: //p')"
    name="kiln-$version-$target"
    folder="$out/$name"
    program=kiln
    case "$target" in
    *windows-msvc)
        program=kiln.exe
        # The program brings its C library along.
        export RUSTFLAGS="-C target-feature=+crt-static"
        ;;
    esac
    cargo build --release --locked --package kiln-cli
    rm -rf "$folder"
    mkdir -p "$folder/completions" "$folder/man"
    cp "${CARGO_TARGET_DIR:-target}/release/$program" README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE "$folder/"
    mkdir "$folder/licenses"
    (third_party_licenses "$target") >"$folder/licenses/CRATES.txt"
    cp crates/report/fonts/LICENSE-APACHE "$folder/licenses/Roboto-LICENSE-APACHE"

    program="$folder/$program"
    "$program" --version
    "$program" completions bash >"$folder/completions/kiln.bash"
    "$program" completions zsh >"$folder/completions/_kiln"
    "$program" completions fish >"$folder/completions/kiln.fish"
    "$program" completions powershell >"$folder/completions/_kiln.ps1"
    "$program" man "$folder/man"

    case "$target" in
    *windows*) (cd "$out" && powershell.exe -NoProfile -Command "Compress-Archive -Force -Path '$name' -DestinationPath '$name.zip'") ;;
    *) tar -C "$out" -czf "$out/$name.tar.gz" "$name" ;;
    esac
    rm -rf "$folder"
    ls -l "$out/$name".*
}

publish() {
    local tag="$1" out="$2"
    check "$tag"
    cd "$out"
    sha256sum kiln-"$version"-* >SHA256SUMS
    cat SHA256SUMS
    (cd "$OLDPWD" && notes) | gh release create "$tag" --verify-tag --title "Kiln $version" --notes-file - kiln-"$version"-* SHA256SUMS
}

case "${1:-} $#" in
"build 2") build "$2" ;;
"check 2") check "$2" ;;
"publish 3") publish "$2" "$3" ;;
*) fail "usage: bash .github/release.sh build OUT | check TAG | publish TAG OUT" ;;
esac
