#!/usr/bin/env bash
# Everything that is worth knowing of a GPU, in one call of less than ten minutes. It needs Python with PyTorch to
# compare with, but neither cargo nor a network.
#
#     bash benchmarks/gpu_pack.sh IMAGES_ARCHIVE       where Kiln was built: makes .gpu/
#     bash benchmarks/gpu.sh [FOLDER] [RESULTS]        on the machine with the GPU, from .gpu/ and into $OUT or gpu-results/
#
# The most valuable comes first: what Kiln sees, whether its operators are right, which shaders are the fastest,
# training and inference against PyTorch, then a network that is trained until the time is up. Every step has its own
# time limit, keeps its result as soon as it is there, and costs the next ones nothing if it fails. The same line again
# does what is missing, and continues the training.
#
# From the environment:
#     SECONDS_LEFT=580       for all of it; training ends 30 s before
#     KILN_DEVICE=gpu        Kiln's device (gpu, gpu:N, software)
#     TORCH_DEVICE=cuda      PyTorch's (cuda, cpu), or none to go without PyTorch
#     STATE=/tmp/kiln-gpu    what a second call needs of the first
#     RECIPE=speedrun-94 TRAIN_ARGS=""
#     WIDTH=64 BATCHES="128 512" STEPS=20 IMAGES="1 256"
#
# Tried with a software adapter in a GPU's place: tests/gpu_dry_run.sh.
set -uo pipefail

here=$(cd "$(dirname "$0")" && pwd)
folder=$(realpath "${1:-.gpu}") || exit 2
results=${2:-${OUT:-gpu-results}}
mkdir -p "$results" && results=$(realpath "$results") || exit 2
state=${STATE:-/tmp/kiln-gpu} left=${SECONDS_LEFT:-580}
device=${KILN_DEVICE:-gpu} torch=${TORCH_DEVICE:-cuda}
width=${WIDTH:-64} batches=${BATCHES:-128 512} steps=${STEPS:-20} images=${IMAGES:-1 256}
mkdir -p "$state/done" "$state/bin"
exec > >(tee -a "$results/log.txt") 2>&1
# Tuned choices come home with the results.
export XDG_CACHE_HOME=$state/cache
failed=""

# Vulkan's loader from the packed package, where the machine has none.
if ! ldconfig -p | grep -q libvulkan.so.1; then
    for package in "$folder"/debs/*.deb; do dpkg -x "$package" "$state/debs"; done
    export LD_LIBRARY_PATH="$state/debs/usr/lib/x86_64-linux-gnu:${LD_LIBRARY_PATH:-}"
fi
# Some containers keep NVIDIA's description of its driver where the loader does not look.
nvidia=/usr/local/nvidia/share/vulkan/icd.d/nvidia_icd.json
if [ -z "${VK_DRIVER_FILES:-}" ] && [ -e $nvidia ] && ! compgen -G '/usr/share/vulkan/icd.d/nvidia*' >/dev/null \
    && ! compgen -G '/etc/vulkan/icd.d/nvidia*' >/dev/null; then
    export VK_DRIVER_FILES=$nvidia
fi
kiln=$state/bin/kiln
if [ ! -x "$kiln" ]; then
    xz --decompress --stdout "$folder/kiln.xz" >"$kiln" 2>/dev/null \
        || python3 -c 'import lzma, sys; sys.stdout.buffer.write(lzma.open(sys.argv[1]).read())' "$folder/kiln.xz" >"$kiln"
    chmod +x "$kiln"
fi
export kiln

# step NAME SECONDS COMMAND..: its stdout becomes RESULTS/NAME, and its messages RESULTS/NAME.log.
step() {
    local name=$1 limit=$2 code since=$SECONDS
    shift 2
    if [ -e "$state/done/$name" ]; then
        echo "== $name: done by an earlier call"
        return
    fi
    [ $((left - SECONDS)) -ge "$limit" ] || limit=$((left - SECONDS))
    if [ "$limit" -lt 5 ]; then
        echo "== $name: left out, the time is up"
        failed+=" $name"
        return
    fi
    echo "== $name: $*"
    timeout --kill-after=10 "$limit" "$@" >"$results/$name" 2>"$results/$name.log"
    code=$?
    tail -n 5 "$results/$name.log"
    echo "== $name: code $code (124: no end in $limit s) after $((SECONDS - since)) s, $((left - SECONDS)) s left"
    if [ $code = 0 ]; then touch "$state/done/$name"; else failed+=" $name"; fi
}

machine() {
    date -u +%FT%TZ
    uname -srm
    grep -m1 'model name' /proc/cpuinfo
    echo "cores $(nproc)"
    "$kiln" --version
    "$kiln" devices
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv 2>/dev/null
    python3 -c 'import torch; print("torch", torch.__version__, "cuda", torch.version.cuda, "cudnn", torch.backends.cudnn.version())'
    ldconfig -p | grep libvulkan
    ls /usr/share/vulkan/icd.d /etc/vulkan/icd.d 2>/dev/null
    echo "VK_DRIVER_FILES=${VK_DRIVER_FILES:-}"
    "$kiln" devices >/dev/null
}
export -f machine

# against_pytorch NAME SECONDS SCRIPT KILN_ARGUMENTS ARGUMENT..
against_pytorch() {
    local name=$1 limit=$2 script=$3 arguments=$4
    shift 4
    [ "$torch" != none ] || return 0
    step "$name.json" "$limit" python3 "$here/$script" --json --kiln "$kiln" --kiln-args="--device $device $arguments" \
        --device "$torch" --rounds 1 --widths "$width" "$@"
}

train() {
    local run=$state/run limit=$((left - SECONDS - 30))
    local arguments=(train --device "$device" --json)
    if [ -e "$folder/images.tar.gz" ]; then
        arguments+=(--data "$folder/images.tar.gz")
    else
        arguments+=(--dataset synthetic)
    fi
    if [ -e "$run/model.safetensors" ]; then
        echo "== train: done by an earlier call"
    elif [ $limit -lt 20 ]; then
        echo "== train: left out, the time is up"
        failed+=" train"
    else
        if [ -e "$run/last.ckpt" ]; then
            arguments+=(--resume "$run")
        else
            rm -rf "$run"
            # shellcheck disable=SC2206  # several words
            arguments+=(--recipe "${RECIPE:-speedrun-94}" --budget "$((limit - 10))s" --out "$run" ${TRAIN_ARGS:-})
        fi
        echo "== train: kiln ${arguments[*]}"
        # Ctrl-C, upon which it saves.
        timeout --signal=INT --kill-after=20 $limit "$kiln" "${arguments[@]}" >>"$results/train.jsonl" 2>>"$results/train.log"
        echo "== train: code $?, $((left - SECONDS)) s left"
    fi
    cp "$run"/{metrics.jsonl,recipe.toml,environment.json,report.html} "$results/" 2>/dev/null
    if [ -e "$run/model.safetensors" ]; then
        step network.txt 30 "$kiln" export "$run" --no-accuracy --force --output "$results/network-int8.safetensors"
    else
        echo "== train: not at its end; the same line continues it"
        failed+=" train"
    fi
}

# tune_and_compare BATCH: both are the first of their kind, and wait for compilers.
tune_and_compare() {
    step "tune-$1.json" 60 "$kiln" tune --device "$device" --set model.width="$width" --set training.batch_size="$1" \
        --budget 45s --json
    cp -r "$state/cache" "$results/" 2>/dev/null
    against_pytorch "step-$1-eager-tf32" 90 train_vs_pytorch.py "" --batch "$1" --steps "$steps" --channels-last --tf32
}

step machine.txt 20 bash -c machine
step doctor.json 60 "$kiln" doctor --device "$device" --json
read -r first others <<<"$batches"
tune_and_compare "$first"
against_pytorch "step-$first-compile-bf16" 90 train_vs_pytorch.py "" --batch "$first" --steps "$steps" \
    --channels-last --compile --bf16
for count in $images; do
    against_pytorch "inference-$count" 40 inference_vs_pytorch.py "" --batch "$count" --runs "$steps" --channels-last --tf32
done
for batch in $others; do tune_and_compare "$batch"; done
if grep -q "matrix units" "$results/machine.txt"; then
    against_pytorch "step-$first-f16-against-compile-bf16" 90 train_vs_pytorch.py "--precision f16" --batch "$first" \
        --steps "$steps" --channels-last --compile --bf16
fi
step layers.json 40 "$kiln" bench layers --width "$width" --batch "$first" --runs 5 --device "$device" --json
step doctor-webgpu.json 40 "$kiln" doctor --device "$device" --limits webgpu --json
train
echo "== $SECONDS s; the results are in $results"
if [ -n "$failed" ]; then
    echo "== failed or left out:$failed"
    exit 1
fi
