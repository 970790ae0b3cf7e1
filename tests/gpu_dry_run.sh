#!/usr/bin/env bash
# benchmarks/gpu.sh with a software adapter in a GPU's place and without PyTorch: every step of it runs, and a second call
# does nothing again. Takes about three minutes.
#
#     bash tests/gpu_dry_run.sh
set -euo pipefail
cd "$(dirname "$0")/.."

kiln=${KILN_BINARY:-target/release/kiln}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/packed"
strip -o "$folder/packed/kiln" "$kiln" && xz -0 "$folder/packed/kiln"

call() {
    STATE=$folder/state KILN_DEVICE=software TORCH_DEVICE=none WIDTH=4 BATCHES="8" STEPS=2 RECIPE=quick SECONDS_LEFT=$1 \
        TRAIN_ARGS="--limit 100 --set model.width=4 --set training.batch_size=16" \
        bash benchmarks/gpu.sh "$folder/packed" "$folder/results"
}

call 240 || { cat "$folder"/results/*.log; exit 1; }
for result in machine.txt doctor.json tune-8.json layers.json doctor-webgpu.json train.jsonl metrics.jsonl \
    network-int8.safetensors; do
    [ -s "$folder/results/$result" ] || { echo "error: $result is missing or empty" >&2; exit 1; }
done
compgen -G "$folder/results/cache/kiln/tuning-*.json" >/dev/null || { echo "error: what was tuned is lost" >&2; exit 1; }
again=$(call 60)
if grep -E '^== .*(kiln|failed)' <<<"$again" | grep -v 'the results are'; then
    echo "error: a second call does something again" >&2
    exit 1
fi
echo "the dry run has every result"
