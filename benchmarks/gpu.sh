#!/usr/bin/env bash
# Checks and measures Kiln on a machine with a GPU. It needs neither cargo nor the network: a built
# `kiln`, this repository's files, and python3 with PyTorch to compare with.
#
#     bash benchmarks/gpu.sh KILN_BINARY IMAGES_ARCHIVE OUT_FOLDER [doctor|layers|step|inference|train ..]
#
# Everything lands in OUT_FOLDER: a JSON file a measurement, its messages beside it (.log), and
# machine.txt. What is there already is not measured again, and `train` goes on where it stopped: run
# the same line until it says that all is done. Steps don't need each other.
#
# From the environment:
#     KILN_DEVICE=gpu        kiln's device (gpu, gpu:N, cuda, software, cpu)
#     TORCH_DEVICE=cuda      PyTorch's (cuda, cpu)
#     LIMIT=540              seconds for each measurement, and for each turn of `train`
#     BUDGET=30m             what `train` fits its schedule into, over all turns; empty: all of its epochs
#     WIDTHS="16 64" BATCH=128 RUNS=30 ROUNDS=3
#     TRAIN_ARGS=""          more for `kiln train`
#
# kiln loads Vulkan's loader when it starts. Where libvulkan.so.1 is missing, the one of another machine
# will do (package libvulkan1): put it into a folder and set LD_LIBRARY_PATH to that. The driver's own
# description is found in /usr/share/vulkan/icd.d or /etc/vulkan/icd.d; VK_ICD_FILENAMES names another.
# In a container NVIDIA's is there only with NVIDIA_DRIVER_CAPABILITIES=all (or graphics).
set -uo pipefail

if [ $# -lt 3 ]; then
    sed -n '2,6p' "$0" >&2
    exit 2
fi
kiln=$(realpath "$1") images=$(realpath "$2")
mkdir -p "$3" && out=$(realpath "$3") && shift 3 || exit 2
here=$(cd "$(dirname "$0")" && pwd)
[ $# -gt 0 ] || set -- doctor layers step inference train
device=${KILN_DEVICE:-gpu} torch=${TORCH_DEVICE:-cuda} limit=${LIMIT:-540}
widths=${WIDTHS:-16 64} batch=${BATCH:-128} runs=${RUNS:-30} rounds=${ROUNDS:-3}
budget=${BUDGET-30m}
left=0

# measure NAME COMMAND..: its stdout becomes OUT/NAME.json, which is there only if it succeeded.
measure() {
    local name=$1 code
    shift
    if [ -e "$out/$name.json" ]; then
        echo "$name: there already"
        return
    fi
    echo "$name: $*" | tee "$out/$name.log"
    timeout -k 20 "$limit" "$@" >"$out/$name.part" 2>>"$out/$name.log"
    code=$?
    if [ $code = 0 ]; then
        mv "$out/$name.part" "$out/$name.json"
    else
        echo "$name: failed with code $code (124: no end in $limit s); see $out/$name.log and $name.part" >&2
        left=1
    fi
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
}

# Kiln and PyTorch in turn, for each way that PyTorch can be run; the last time Kiln in f16 too, which
# fails on a GPU whose matrix units it does not take.
against_pytorch() {
    local name=$1 script=$2 mode
    shift 2
    for mode in "" "--channels-last" "--tf32" "--compile" "--compile --channels-last --tf32" \
        "--compile --channels-last --bf16"; do
        # shellcheck disable=SC2086  # several words
        measure "$name${mode// --/-}" python3 "$here/$script" --json --kiln "$kiln" \
            --kiln-args="--device $device" --device "$torch" --rounds "$rounds" "$@" $mode
    done
    # shellcheck disable=SC2086
    measure "$name-f16${mode// --/-}" python3 "$here/$script" --json --kiln "$kiln" \
        --kiln-args="--device $device --precision f16" --device "$torch" --rounds "$rounds" "$@" $mode
}

train() {
    local run=$out/train code
    if [ -e "$run/model.safetensors" ]; then
        echo "train: there already"
        return
    fi
    local arguments=(train --data "$images" --device "$device" --json)
    if [ -e "$run/last.ckpt" ]; then
        arguments+=(--resume "$run")
    else
        # What a first turn left that never saved anything.
        rm -rf "$run"
        # shellcheck disable=SC2206  # several words
        arguments+=(--recipe resnet18 --out "$run" ${budget:+--budget $budget} ${TRAIN_ARGS:-})
    fi
    echo "train: kiln ${arguments[*]}" | tee -a "$out/train.log"
    # Ctrl-C, upon which it saves.
    timeout -s INT -k 60 "$limit" "$kiln" "${arguments[@]}" >>"$out/train.jsonl" 2>>"$out/train.log"
    code=$?
    if [ -e "$run/model.safetensors" ]; then
        echo "train: done"
    else
        echo "train: stopped with code $code; the same line goes on with it (see $out/train.log)" >&2
        left=1
    fi
}

machine >"$out/machine.txt" 2>&1
for step in "$@"; do
    case $step in
        # Exits with 1 if a device fails; its report is then doctor.part.
        doctor) measure doctor "$kiln" doctor --json ;;
        layers)
            for width in $widths; do
                measure "layers-$width" "$kiln" bench layers --width "$width" --batch "$batch" --runs "$runs" \
                    --device "$device" --json
            done
            ;;
        # shellcheck disable=SC2086  # several words
        step) against_pytorch step train_vs_pytorch.py --widths $widths --batch "$batch" --steps "$runs" ;;
        # shellcheck disable=SC2086
        inference) against_pytorch inference inference_vs_pytorch.py --widths $widths --runs "$runs" ;;
        train) train ;;
        *) echo "no step is called '$step': there are doctor, layers, step, inference, train" >&2 && left=2 ;;
    esac
done
[ $left = 0 ] && echo "all is done; the results are in $out"
exit $left
