#!/usr/bin/env bash
# Runs the tests with the graphics that macOS or Windows has: Metal, or DX12 (on Windows without a GPU its WARP).
# The other checks (formatting, lints, hostile input, browsers) need Linux: tests/run.sh.
#
#     bash tests/native.sh
#
# KILN_SKIP_GPU=1 goes without a graphics adapter: the tests that need one say that they were skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }

step "build"
cargo test --release --locked --workspace --no-run
step "devices"
"${CARGO_TARGET_DIR:-target}/release/kiln" devices
step "tests"
cargo test --release --locked --workspace
step "all tests passed"
