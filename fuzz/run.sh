#!/usr/bin/env bash
# Builds the fuzz targets on stable Rust and runs them one after the other, from seeds made first.
#
#     bash fuzz/run.sh [SECONDS] [TARGET..]     60 seconds each by default
#
# A crash stops the script; its input lies in fuzz/crashes, and `fuzz/run.sh 0 TARGET` builds the program to run
# it with. What was learnt stays in fuzz/corpus for the next time.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:-60}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(bundle checkpoint recipe image archive run)

# What cargo-fuzz passes too, without a sanitiser, which only nightly Rust has. Named as a target, since build
# scripts and macros must not be instrumented.
host=$(rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=1"
cargo build --release --locked --target "$host" --bins
programs=target/$host/release

"$programs/seeds" corpus
mkdir -p crashes
for target in "${targets[@]}"; do
    [ "$seconds" = 0 ] && continue
    echo "== $target, $seconds seconds"
    # An image may take 176 MiB, and the program itself what is left.
    "$programs/$target" "corpus/$target" -max_total_time="$seconds" -max_len=65536 -rss_limit_mb=512 -timeout=20 \
        -artifact_prefix="crashes/$target-" -print_final_stats=1 2>&1 |
        grep -E '^(==|#[0-9]+.*(DONE|INITED)|stat::|SUMMARY|MS:|thread|.*panicked|artifact_prefix|.*ERROR)' || true
    [ "${PIPESTATUS[0]}" = 0 ] || { echo "error: $target crashed; its input is in fuzz/crashes" >&2; exit 1; }
done
