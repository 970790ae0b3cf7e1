#!/usr/bin/env bash
# Checks everything that runs in a browser: crates/web in Chromium and Firefox, then the page in
# Chromium. Installs what is missing (on Debian and Ubuntu) and says how where it cannot.
#
#     bash tests/browser.sh
#
# KILN_CHROMIUM, CHROMEDRIVER and GECKODRIVER name other programs than those in PATH.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

step() { printf '\n== %s\n' "$*"; }
have() { command -v "$1" >/dev/null; }
sudo=""
[ "$(id -u)" = 0 ] || sudo=sudo

# Installs a Debian package for a program that is missing.
need() {
    have "$1" && return
    if ! have apt-get; then
        echo "error: $1 is missing. Install it (Debian calls the package $2), then run this again." >&2
        exit 1
    fi
    [ -n "${updated:-}" ] || $sudo apt-get update -qq
    updated=yes
    $sudo apt-get install -y -qq "$2" >/dev/null
}

step "browsers"
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
[ -n "${KILN_CHROMIUM:-}" ] || need chromium chromium
[ -n "${CHROMEDRIVER:-}" ] || need chromedriver chromium-driver
have firefox || need firefox-esr firefox-esr
[ -n "${GECKODRIVER:-}" ] || have geckodriver || cargo install --quiet geckodriver
have wasm-pack || cargo install --quiet wasm-pack

step "the page's WebAssembly"
# Sourced, so that the tests are built by the same compiler with the same settings.
# shellcheck source=../web/build.sh
source web/build.sh

step "crates/web in Chromium"
export CARGO_TARGET_DIR="$PWD/target/web"
# Seconds for a whole file of tests; its default of 20 is short on a busy machine.
export WASM_BINDGEN_TEST_TIMEOUT="${WASM_BINDGEN_TEST_TIMEOUT:-120}"
wasm-pack test --headless --chrome --chromedriver "${CHROMEDRIVER:-$(command -v chromedriver)}" --release crates/web
step "crates/web in Firefox, whose WebGPU is switched off on Linux"
wasm-pack test --headless --firefox --geckodriver "${GECKODRIVER:-$(command -v geckodriver)}" --release crates/web --features skip-webgpu

step "the page in Chromium"
need npm npm
npm ci --prefix tests/browser --silent --no-audit --no-fund
npm test --prefix tests/browser --silent
step "all browser checks passed"
