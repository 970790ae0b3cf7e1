#!/usr/bin/env bash
# Builds the fuzz targets on stable Rust and runs them one after the other, from seeds made first.
#
#     bash fuzz/run.sh [SECONDS] [TARGET..]     60 seconds each by default
#
# A crash stops the script; its input lies in fuzz/crashes, and the program given that file as its argument shows it
# again. What was learnt stays in fuzz/corpus for the next time.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:-60}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(bundle checkpoint checkpoint-file onnx recipe image archive cifar labels run)

# What cargo-fuzz passes too, without a sanitiser, which only nightly Rust has. Named as a target, since build
# scripts and macros must not be instrumented.
host=$(rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=1"
cargo build --release --locked --target "$host" --bins
programs=target/$host/release

# The targets write many small files and wait for them to be on disk: in memory, where there is such a place.
[ -d /dev/shm ] && export TMPDIR=/dev/shm

"$programs/seeds" corpus
mkdir -p crashes
[ "$seconds" = 0 ] && exit
for target in "${targets[@]}"; do
    echo "== $target, $seconds seconds"
    # A picture may take 176 MiB, and the program itself some.
    status=0
    # The least residual network takes more than the others' files in other programs' formats.
    most=65536
    case $target in checkpoint-file | onnx) most=131072 ;; esac
    "$programs/$target" "corpus/$target" -max_total_time="$seconds" -max_len="$most" -rss_limit_mb=300 -timeout=20 \
        -artifact_prefix="crashes/$target-" -print_final_stats=1 >"crashes/$target.log" 2>&1 || status=$?
    grep -E '(INITED|DONE|stat::number|stat::peak|panicked|ERROR|SUMMARY|Test unit)' "crashes/$target.log"
    [ "$status" = 0 ] || { echo "error: $target ended with $status; see fuzz/crashes" >&2; exit 1; }
done
