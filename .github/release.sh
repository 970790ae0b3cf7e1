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

# Writes the licenses of the crates in the program: which crate has which, then each text once.
third_party_licenses() {
    local target="$1" folder
    local registry="${CARGO_HOME:-$HOME/.cargo}/registry/src"
    folder="$(mktemp -d)"
    cargo tree --locked --package kiln-cli --target "$target" --edges normal,no-proc-macro --prefix none --no-dedupe --format '{p}|{l}' |
        grep -v ' (/\| ([A-Z]:' | sort -u >"$folder/crates"
    echo "Kiln's program contains these crates, by the licenses named."
    echo
    local package license text digest
    while IFS='|' read -r package license; do
        package="${package%% (*}"
        echo "$package: $license"
        for text in "$registry"/*/"${package/ v/-}"/*; do
            [ -f "$text" ] || continue
            case "$(basename "$text" | tr '[:upper:]' '[:lower:]')" in
            license* | licence* | copying* | copyright* | notice* | unlicense*)
                digest="$(cksum <"$text" | tr ' ' -)"
                cp "$text" "$folder/$digest.text"
                echo "$package" >>"$folder/$digest.crates"
                ;;
            esac
        done
    done <"$folder/crates"
    for text in "$folder"/*.text; do
        printf '\n%s\n' "================================================================================"
        sort -u "${text%.text}.crates"
        printf '%s\n\n' "--------------------------------------------------------------------------------"
        cat "$text"
    done
    rm -rf "$folder"
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
    third_party_licenses "$target" >"$folder/licenses/CRATES.txt"
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
