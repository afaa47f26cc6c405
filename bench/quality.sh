#!/bin/sh
# What reduced precision does to the shipped model's pictures: images of the same seeds and classes in fp32, bf16 and int8,
# each compared by FID with fp32 images of another seed. The first two lines are the noise: fp32 against fp32 of two
# seeds. With the features random:11 the Inception network has random weights of that seed, so that nothing needs to be
# fetched. What is there already is not made again.
#
#   bench/quality.sh [IMAGES] [FEATURES] [FOLDER]
set -eu
images=${1:-2000} features=${2:-random:11} folder=${3:-quality}
gen=${GEN:-target/release/gen}
mkdir -p "$folder"

sample() { # NAME SEED OPTIONS…
    name=$1 seed=$2
    shift 2
    [ -e "$folder/$name.npz" ] || "$gen" -q sample --num-images "$images" --balanced --seed "$seed" "$@" \
        --npz "$folder/$name.npz" >&2
}

sample reference 1
sample fp32 0
sample fp32-again 2
sample bf16 0 --precision bf16
sample int8 0 --precision int8
sample bf16-all 0 --precision bf16 --tokenizer-precision bf16
[ -e "$folder/reference-statistics.npz" ] || "$gen" -q eval stats "$folder/reference.npz" --kind other --inception "$features" \
    --output "$folder/reference-statistics.npz" >&2
for name in fp32 fp32-again bf16 int8 bf16-all; do
    "$gen" -q eval "$folder/$name.npz" --reference "$folder/reference-statistics.npz" --metrics fid \
        --inception "$features" | grep -i fid | head -n 1 | sed "s/^/$name: /"
done
