#!/usr/bin/env bash
# Runs every check, those in browsers (tests/browser.sh) last. Installs what is missing and says how
# where it cannot.
#
#     bash tests/run.sh
#
# KILN_SKIP_GPU=1 goes without a graphics adapter: the tests that need one say that they were
# skipped. KILN_SKIP_FUZZ=1 goes without the fuzz targets, which take some minutes to compile.
# KILN_CIFAR10_FOLDER=PATH adds the checks on real images (train/<class>/*.jpg, or such a folder as
# .tar.gz).
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }

if ! command -v cargo >/dev/null; then
    echo "error: cargo is missing. Install Rust 1.95 or newer from https://rustup.rs, then run this again." >&2
    exit 1
fi
# rustup's minimal profile lacks these two.
for component in rustfmt clippy; do
    cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1 || rustup component add "$component"
done

# On Linux the tests on wgpu take Mesa's software Vulkan where there is no GPU.
if [ "$(uname)" = Linux ] && [ -z "${KILN_SKIP_GPU:-}" ] && ! compgen -G '/usr/share/vulkan/icd.d/*.json' >/dev/null && ! compgen -G '/etc/vulkan/icd.d/*.json' >/dev/null; then
    step "installing a software Vulkan driver"
    sudo=""
    [ "$(id -u)" = 0 ] || sudo=sudo
    if command -v apt-get >/dev/null; then
        $sudo apt-get update -qq && $sudo apt-get install -y -qq mesa-vulkan-drivers libvulkan1
    else
        echo "error: there is no Vulkan driver. Install Mesa's (lavapipe is enough), or set KILN_SKIP_GPU=1." >&2
        exit 1
    fi
fi

step "formatting"
cargo fmt --all --check
step "workflows and scripts"
bash tests/workflows.sh
# One profile for everything: the dependencies are compiled once.
step "tests"
cargo test --release --workspace
step "the examples run"
bash tests/examples.sh
if [ "$(uname)" = Linux ] && [ -z "${KILN_SKIP_GPU:-}" ]; then
    step "a dry run of the measurements on a GPU"
    bash tests/gpu_dry_run.sh
fi
# With the cuda feature, so that its code is checked too, and the documentation with the same, so that the dependencies
# are checked once. DOCS_RS keeps one of them from downloading LLVM, which type-checking does not need.
export DOCS_RS=1
step "lints"
cargo clippy --release --workspace --all-targets --features kiln-cli/cuda -- -D warnings
step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --features kiln-cli/cuda --lib --no-deps --quiet
unset DOCS_RS
step "a build for CPUs alone"
cargo clippy --release --package kiln-cli --no-default-features --features cpu -- -D warnings
# libFuzzer is C++.
if [ -z "${KILN_SKIP_FUZZ:-}" ] && command -v c++ >/dev/null; then
    step "five seconds of hostile input for each parser"
    bash fuzz/run.sh 5
fi
bash tests/browser.sh
step "all checks passed"
