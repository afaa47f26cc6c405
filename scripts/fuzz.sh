#!/bin/sh
# Every reader of files on INPUTS mutated ones each (a million by default), one process a reader, so that each one's peak
# memory is told. Needs no nightly Rust; with it, `cargo +nightly fuzz run READER` in `fuzz/` explores by coverage.
set -eu

cd "$(dirname "$0")/.."
INPUTS="${1:-1000000}"
${CARGO:-cargo} build --release --example fuzz
for reader in $(ls fuzz/corpus); do
    target/release/examples/fuzz "$reader" "$INPUTS"
done
