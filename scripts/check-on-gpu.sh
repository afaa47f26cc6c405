#!/bin/sh
# Runs every verb that computes on a GPU, on pictures and models that are at hand, and compares with the CPU where the numbers
# must agree. About three minutes of an H200. Prints one line a check; status 1 if one failed.
#   scripts/check-on-gpu.sh PICTURES WORK      PICTURES: class folders at 64×64; WORK: a folder for what is made
#   GEN      the program                  [target/release/gen]
#   DEVICE   cuda, cuda:N, or cpu to try  [cuda]
set -u
[ $# = 2 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
PICTURES=$1 WORK=$2
GEN=${GEN:-target/release/gen} DEVICE=${DEVICE:-cuda}
SOURCE=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$WORK"
failed=0

# check NAME COMMAND…: its time and result; the output of one that fails.
check() {
    name=$1
    shift
    start=$(date +%s)
    if "$@" >"$WORK/log" 2>&1; then
        echo "ok      $name ($(($(date +%s) - start)) s)"
    else
        failed=1
        echo "FAILED  $name: $*"
        tail -n 15 "$WORK/log" | sed 's/^/        /'
    fi
}

# near A B KEY: two JSON reports differ by less than a hundredth in the number that KEY names.
near() {
    python3 - "$@" <<'P'
import json, sys
def find(o, key):
    if isinstance(o, dict):
        return o[key] if key in o else next((v for v in (find(x, key) for x in o.values()) if v is not None), None)
    return next((v for v in (find(x, key) for x in o) if v is not None), None) if isinstance(o, list) else None
a, b = (find(json.load(open(p)), sys.argv[3]) for p in sys.argv[1:3])
assert a is not None and b is not None and abs(a - b) < 0.01 * max(1, abs(a)), (a, b)
P
}

# A few pictures of eight classes.
for class in $(find "$PICTURES" -mindepth 1 -maxdepth 1 -type d | sort | head -n 8); do
    mkdir -p "$WORK/pictures/$(basename "$class")"
    find "$class" -name '*.jp*g' | sort | head -n 8 | while read -r picture; do
        cp "$picture" "$WORK/pictures/$(basename "$class")/"
    done
done
PICTURES=$WORK/pictures

has_cuda() { case $DEVICE in cpu) return 1 ;; esac; }
few="optimization.batch_size=32 optimization.steps=8 optimization.warmup=2 every.validate=8 every.samples=8"

check doctor "$GEN" doctor --device "$DEVICE"
check sample "$GEN" sample --class 207 --num 16 --top-k 1 --device "$DEVICE" -o "$WORK/plain"
check "sample, bf16" "$GEN" sample --class 207 --num 16 --top-k 1 --precision bf16 --device "$DEVICE" -o "$WORK/bf16"
if has_cuda; then
    for option in --cuda-graph --gpu-kernels "--cuda-graph --gpu-kernels"; do
        # shellcheck disable=SC2086
        check "sample $option" "$GEN" sample --class 207 --num 16 --top-k 1 --precision bf16 --device "$DEVICE" $option \
            -o "$WORK/$(echo "$option" | tr -d ' ')"
    done
    check "a recorded step draws the same" cmp "$WORK/bf16/000000.png" "$WORK/--cuda-graph/000000.png"
    check "sample, int8" "$GEN" sample --class 207 --num 16 --precision int8 --device "$DEVICE" -o "$WORK/int8"
fi
check "sample, text" "$GEN" sample --model imagenet56-64-text --prompt "a lion" --num 4 --device "$DEVICE" -o "$WORK/text"
check "sample, speculative" "$GEN" sample --class 207 --num 4 --speculative 8 --device "$DEVICE" -o "$WORK/speculative"
check encode "$GEN" encode "$WORK/plain" --device "$DEVICE" -o "$WORK/codes.safetensors"
check decode "$GEN" decode "$WORK/codes.safetensors" --device "$DEVICE" -o "$WORK/decoded"
for where in cpu "$DEVICE"; do
    check "reconstruct on $where" sh -c '"$0" reconstruct "$1" --device "$2" --json -o "$3/rec-$2" >"$3/rec-$2.json"' \
        "$GEN" "$PICTURES" "$where" "$WORK"
done
check "reconstructions agree" near "$WORK/rec-cpu.json" "$WORK/rec-$DEVICE.json" psnr
check extract "$GEN" extract --data "$PICTURES" --augment flip --device "$DEVICE" -o "$WORK/codes"
check likelihood "$GEN" eval --likelihood "$PICTURES" --device "$DEVICE"
check eval "$GEN" eval "$WORK/plain" --reference "$PICTURES" --metrics fid,kid,precision,recall --kid-subset-size 8 --inception random:11 --device "$DEVICE"
check features "$GEN" features "$WORK/plain" --network efficientnet-lite0 --weights random:1 --device "$DEVICE" -o "$WORK/features.npz"
# shellcheck disable=SC2086
check train-features "$GEN" train-features --data "$PICTURES" --device "$DEVICE" -o "$WORK/train-features" $few
# shellcheck disable=SC2086
check train-tokenizer "$GEN" train-tokenizer --recipe "$SOURCE/configs/train/tokenizer-64.yaml" --data "$PICTURES" \
    --device "$DEVICE" -o "$WORK/train-tokenizer" losses.perceptual=null $few
# shellcheck disable=SC2086
check train-ar "$GEN" train-ar --codes "$WORK/codes" --device "$DEVICE" -o "$WORK/train-ar" $few
check "train-ar goes on" "$GEN" train-ar --resume --device "$DEVICE" -o "$WORK/train-ar" optimization.steps=12
check probe "$GEN" probe --data "$PICTURES" --validation "$PICTURES" --epochs 1 --device "$DEVICE" -o "$WORK/probe"
check "bench, sample" "$GEN" bench --device "$DEVICE" --work sample --model "$SOURCE/configs/ar/gigatok-gpt-b.yaml" \
    --tokenizer "$SOURCE/configs/tokenizer/gigatok-ss256.yaml" --precision bf16 --batch-size 16
exit $failed
