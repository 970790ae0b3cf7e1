#!/usr/bin/env bash
# Makes a folder of what has to travel to a machine with a GPU that has neither cargo nor a network.
#
#     cargo build --release && bash benchmarks/gpu_pack.sh IMAGES_ARCHIVE [FOLDER]
#
# FOLDER (default: .gpu, which git ignores) gets the stripped binary, Vulkan's loader from Debian's package and the
# images. Where it goes, the repository's files have to go too: gpu.sh says how it is used. Says how much travels, and
# fails above 64 MiB (LIMIT, in bytes).
set -euo pipefail

[ $# -ge 1 ] || { sed -n '2,8p' "$0" >&2; exit 2; }
images=$(realpath "$1")
cd "$(dirname "$0")/.."
folder=${2:-.gpu} limit=${LIMIT:-67108864}
binary=${KILN_BINARY:-target/release/kiln}
[ -x "$binary" ] || { echo "error: there is no $binary: cargo build --release makes it" >&2; exit 1; }

mkdir -p "$folder/debs"
strip -o "$folder/kiln" "$binary"
xz --threads=0 -6 --force "$folder/kiln"
install --mode=644 "$images" "$folder/images.tar.gz"
(cd "$folder/debs" && apt-get download --quiet libvulkan1 >/dev/null 2>&1) \
    || echo "note: apt-get cannot fetch libvulkan1; the machine has to have Vulkan's loader" >&2

bytes() { xargs -0 --no-run-if-empty du --bytes --total | tail -n 1 | cut -f 1; }
tree=$(git ls-files --cached --others --exclude-standard -z | bytes)
packed=$(find "$folder" -type f -print0 | bytes)
total=$((tree + packed))
echo "$folder: $((packed / 1000000)) MB; with the tree's $((tree / 1000000)) MB, $((total / 1000000)) MB travel"
if [ "$total" -gt "$limit" ]; then
    echo "error: that is more than the limit of $((limit / 1000000)) MB" >&2
    exit 1
fi
