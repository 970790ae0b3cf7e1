#!/usr/bin/env bash
# Copies what a static host needs of the page into a new or empty folder. Needs the packages of web/build.sh.
#
#     bash web/site.sh OUT          # index.html, sw.js and web/
#     bash web/site.sh OUT --doc    # the same, and the crates' documentation in doc/
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    echo "error: $*" >&2
    exit 1
}

out="${1:-}"
[ -n "$out" ] && [ "${2:---doc}" = --doc ] && [ $# -le 2 ] || fail "usage: bash web/site.sh OUT [--doc]"
[ -e web/pkg/kiln_web_bg.wasm ] || fail "web/pkg is missing: build it with bash web/build.sh"
[ -z "$(ls -A "$out" 2>/dev/null)" ] || fail "$out is not empty"

mkdir -p "$out/web/samples"
cp index.html sw.js "$out/"
cp web/*.css web/*.html web/*.js web/*.webmanifest "$out/web/"
cp web/samples/*.webp "$out/web/samples/"
cp -R web/icons web/models web/pkg "$out/web/"
# Only hosts that send two headers can use it (web/README.md).
[ ! -e web/pkg-threads ] || cp -R web/pkg-threads "$out/web/"

# The service worker's list names every file that the page needs.
sed -n 's|^  "\(web/.*\)",$|\1|p' sw.js | while read -r file; do
    [ -e "$out/$file" ] || fail "$file, which sw.js keeps, is not in $out"
done

if [ $# = 2 ]; then
    cargo doc --locked --workspace --lib --no-deps
    cp -R "${CARGO_TARGET_DIR:-target}/doc" "$out/doc"
    # cargo makes no page above those of the crates.
    echo '<!doctype html><meta charset="utf-8"><title>Kiln</title><meta http-equiv="refresh" content="0; url=kiln/index.html">' >"$out/doc/index.html"
fi
du -sh "$out"
