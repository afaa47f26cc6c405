#!/bin/sh
# Trains the shipped models on a GPU: a tokenizer, its second stage, codes, the class-conditional transformer and the text one.
# About ten minutes of an H200. Stops after LIMIT seconds with status 75; the same command then goes on where it stopped.
#   scripts/train-shipped-on-gpu.sh TRAINING VALIDATION RUNS
# TRAINING and VALIDATION are class folders or shards, RUNS the folder for everything made.
#   GEN      the program                                   [target/release/gen]
#   DEVICE   cuda, cuda:N or cpu                           [cuda]
#   LIMIT    seconds until it stops                        [240]
#   SHARE    share of the steps, to try it out (0.01)      [1]
set -eu
[ $# = 3 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
TRAINING=$1 VALIDATION=$2 RUNS=$3
GEN=${GEN:-target/release/gen} DEVICE=${DEVICE:-cuda} LIMIT=${LIMIT:-240} SHARE=${SHARE:-1}
RECIPES=$(dirname "$0")/../configs/train
DEADLINE=$(($(date +%s) + LIMIT))
mkdir -p "$RUNS"

steps() { awk "BEGIN { n = int($1 * $SHARE); print n < 4 ? 4 : n }"; }

# Runs a command until it is done or the time is over.
limited() {
    left=$((DEADLINE - $(date +%s)))
    [ "$left" -gt 10 ] || { echo "stopped at the limit; the same command goes on"; exit 75; }
    status=0
    timeout -s INT -k 60 "$left" "$@" || status=$?
    [ $status != 124 ] || { echo "stopped at the limit; the same command goes on"; exit 75; }
    return $status
}

# stage NAME VERB ARGUMENTS: a training run of so many steps, begun or gone on with.
stage() {
    name=$1 verb=$2
    shift 2
    [ ! -e "$RUNS/$name.done" ] || return 0
    echo "== $name"
    if ls "$RUNS/$name"/state/*.json >/dev/null 2>&1; then
        limited "$GEN" "$verb" --device "$DEVICE" --output "$RUNS/$name" --resume
    else
        limited "$GEN" "$verb" --device "$DEVICE" --output "$RUNS/$name" "$@"
    fi
    touch "$RUNS/$name.done"
}

stage tokenizer train-tokenizer --recipe "$RECIPES/tokenizer-64-vision.yaml" --data "$TRAINING" --validation "$VALIDATION" \
    optimization.batch_size=256 optimization.micro_batches=1 optimization.lr=3e-3 \
    optimization.steps="$(steps 4500)" optimization.warmup="$(steps 200)" every.validate=1500 every.samples=0
stage sharp train-tokenizer --recipe "$RECIPES/tokenizer-64-sharp.yaml" --init-from "$RUNS/tokenizer" \
    --data "$TRAINING" --validation "$VALIDATION" optimization.batch_size=256 optimization.micro_batches=1 \
    optimization.steps="$(steps 2500)" optimization.warmup="$(steps 100)" losses.adversarial.warmup="$(steps 300)" \
    every.validate=1250 every.samples=0
# Finished shards are kept by `gen extract`, so it goes on by itself.
if [ ! -e "$RUNS/codes.done" ]; then
    echo "== codes"
    limited "$GEN" extract --device "$DEVICE" --tokenizer "$RUNS/sharp" --data "$TRAINING" --augment flip -o "$RUNS/codes"
    touch "$RUNS/codes.done"
fi
stage gpt train-ar --recipe "$RECIPES/gpt-64.yaml" --tokenizer "$RUNS/sharp" --codes "$RUNS/codes" \
    --validation "$VALIDATION" optimization.batch_size=256 optimization.micro_batches=1 optimization.lr=2e-3 \
    optimization.steps="$(steps 7000)" optimization.warmup="$(steps 300)" every.validate=1000 every.samples=0 \
    model.dropout.residual=0.1 model.dropout.feed_forward=0.1
stage text train-ar --recipe "$RECIPES/text-64.yaml" --tokenizer "$RUNS/sharp" --codes "$RUNS/codes" \
    --init-from "$RUNS/gpt" optimization.batch_size=256 optimization.micro_batches=1 \
    optimization.steps="$(steps 1500)" optimization.warmup="$(steps 100)" every.validate=0 every.samples=0
echo "done: $RUNS/sharp is the tokenizer, $RUNS/gpt and $RUNS/text are the models"
