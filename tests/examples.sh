#!/usr/bin/env bash
# Runs the library's examples on the samples of the page, in a folder of their own.
#
#     bash tests/examples.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The whole workspace, as the tests are built: another choice of packages compiles the dependencies anew.
cargo build --release --workspace --examples
root="$PWD"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
for class in cat ship; do
    for split in train test; do
        mkdir -p "$folder/photos/$split/$class"
        for copy in 1 2 3 4 5 6 7 8; do
            cp "web/samples/$class.webp" "$folder/photos/$split/$class/$copy.webp"
        done
    done
done
cd "$folder"

example() {
    local name="$1"
    shift
    printf '\n-- %s\n' "$name"
    "$root/target/release/examples/$name" "$@"
}
example predict "$root/web/models/quick.safetensors" "$root/web/samples/cat.webp" "$root/web/samples/ship.webp"
example custom_loop
example custom_dataset
example fine_tune "$root/web/models/quick.safetensors" photos
example train_folder photos "$root/web/samples/ship.webp"
