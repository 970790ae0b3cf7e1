#!/usr/bin/env bash
# Builds the page's WebAssembly packages: web/pkg/, and web/pkg-threads/ for pages that may have several threads.
# Installs what it lacks.
#
#     bash web/build.sh          # build, shrink, and print the sizes
#     bash web/build.sh --tools  # only install the tools
#
# KILN_DEBIAN_RUST=1 takes Debian's compiler even where rustup could download the target.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

sudo=""
[ "$(id -u)" = 0 ] || sudo=sudo
target=wasm32-unknown-unknown

# The standard library for WebAssembly: rustup has it. Where it can't be downloaded, Debian's compiler
# builds it from its own source.
ensure_target() {
    if command -v rustup >/dev/null && [ -z "${KILN_DEBIAN_RUST:-}" ] && timeout 120 rustup target add "$target" 2>/dev/null; then
        return
    fi
    if [ -e "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]; then
        return
    fi
    if [ ! -x /usr/bin/rustc ] || [ ! -x /usr/bin/cargo ]; then
        if ! command -v apt-get >/dev/null; then
            echo "error: the target $target is missing. Install it: rustup target add $target" >&2
            exit 1
        fi
        $sudo apt-get update -qq
        $sudo apt-get install -y -qq rustc-web cargo-web rust-web-src rust-web-llvm lld-22
    fi
    export PATH="/usr/bin:$PATH"
    local library
    library="$(rustc --print sysroot)/lib/rustlib/$target/lib"
    if ! compgen -G "$library/libstd-*.rlib" >/dev/null; then
        local folder
        folder="$(mktemp -d)"
        mkdir "$folder/src"
        touch "$folder/src/lib.rs"
        printf '[package]\nname = "standard_library"\nversion = "0.0.0"\nedition = "2021"\n[lib]\ncrate-type = ["cdylib"]\n[workspace]\n' >"$folder/Cargo.toml"
        (cd "$folder" && RUSTC_BOOTSTRAP=1 cargo build --quiet --release -Z build-std=std,panic_abort,test --target "$target")
        $sudo mkdir -p "$library"
        $sudo cp "$folder/target/$target"/release/deps/*.rlib "$library/"
        rm -rf "$folder"
    fi
}

# Threads share memory, for which the standard library must be built with atomics, from its source.
has_library_source() {
    local source
    source="$(rustc --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock"
    if [ ! -e "$source" ] && command -v rustup >/dev/null; then
        timeout 120 rustup component add rust-src 2>/dev/null || true
    fi
    [ -e "$source" ]
}

# wasm-bindgen's program must have the version of the library.
ensure_bindgen() {
    local version
    version="$(sed -n '/^name = "wasm-bindgen"$/{n;s/version = "\(.*\)"/\1/p}' Cargo.lock)"
    if [ "$(wasm-bindgen --version 2>/dev/null)" != "wasm-bindgen $version" ]; then
        cargo install --quiet wasm-bindgen-cli --version "$version"
    fi
}

# binaryen's optimiser and brotli's encoder come from npm; a build without npm is a little larger.
tools="target/web-tools"
ensure_npm_tools() {
    if command -v npm >/dev/null && [ ! -x "$tools/node_modules/.bin/wasm-opt" ]; then
        npm install --silent --no-audit --no-fund --no-save --prefix "$tools" binaryen@123 >/dev/null
    fi
}

# What follows may have put another compiler first in PATH; cargo's own programs stay in reach.
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
ensure_target
ensure_bindgen
ensure_npm_tools
if [ "${1:-}" = --tools ]; then
    exit
fi

# What npm needs to know of a package (`npm pack ./web/pkg`).
package_json() {
    local name version
    name="kiln-web${1#web/pkg}"
    version="$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml)"
    cat <<JSON
{
  "name": "$name",
  "version": "$version",
  "description": "Classifies pictures in a browser with a network that Kiln trained, on WebGPU or on the CPU",
  "license": "MIT OR Apache-2.0",
  "type": "module",
  "main": "kiln_web.js",
  "types": "kiln_web.d.ts",
  "files": ["kiln_web.js", "kiln_web.d.ts", "kiln_web_bg.wasm", "kiln_web_bg.wasm.d.ts"],
  "sideEffects": ["./kiln_web.js"]
}
JSON
}

# package FOLDER BUILD_FOLDER CARGO_ARGUMENTS..
package() {
    local folder="$1" built="$2"
    shift 2
    cargo build --release --package kiln-web --target "$target" --target-dir "$built" "$@"
    rm -rf "$folder.new"
    wasm-bindgen --target web --out-dir "$folder.new" "$built/$target/release/kiln_web.wasm"
    local wasm="$folder.new/kiln_web_bg.wasm"
    if [ -x "$tools/node_modules/.bin/wasm-opt" ]; then
        "$tools/node_modules/.bin/wasm-opt" -O3 --enable-simd --enable-bulk-memory --enable-nontrapping-float-to-int --enable-sign-ext --enable-mutable-globals --enable-reference-types --enable-multivalue --enable-threads "$wasm" -o "$wasm.smaller"
        mv "$wasm.smaller" "$wasm"
    fi
    package_json "$folder" >"$folder.new/package.json"
    cp LICENSE-MIT LICENSE-APACHE "$folder.new/"
    # Whole or not at all: a page that loads meanwhile sees the old package or the new one.
    rm -rf "$folder"
    mv "$folder.new" "$folder"
}

export CARGO_PROFILE_RELEASE_LTO=fat CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1
export RUSTFLAGS="-C target-feature=+simd128"
package web/pkg target/web

if has_library_source; then
    # Memory that is shared cannot move when it grows: the browser sets so much of its address space aside.
    address_space=$((2 << 30))
    threads="$RUSTFLAGS,+atomics,+bulk-memory"
    for argument in --shared-memory --import-memory --max-memory=$address_space --export=__wasm_init_tls --export=__tls_{size,align,base}; do
        threads+=" -C link-arg=$argument"
    done
    # The variable lets a stable compiler build its own library.
    RUSTC_BOOTSTRAP=1 RUSTFLAGS="$threads" package web/pkg-threads target/web-threads -Z build-std=std,panic_abort
else
    rm -rf web/pkg-threads
    echo "note: without web/pkg-threads, as the standard library's source is missing (rustup component add rust-src): the page computes on one thread"
fi

size() { printf '%-34s %9d bytes' "$1" "$(wc -c <"$1")"; }
echo
for file in web/pkg*/kiln_web_bg.wasm web/pkg*/kiln_web.js; do
    size "$file"
    if command -v node >/dev/null; then
        node -e 'const {brotliCompressSync} = require("zlib"); console.log(`  ${brotliCompressSync(require("fs").readFileSync(process.argv[1])).length} with brotli`)' "$file"
    else
        echo
    fi
done
