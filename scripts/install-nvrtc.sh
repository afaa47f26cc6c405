#!/bin/sh
# Installs NVIDIA's run-time compiler beside libtorch, from PyPI (90 MB), for the tests that compile the kernels for a GPU.
# They need no GPU. The set with CUDA has it already. A second run does nothing.
set -eu

cd "$(dirname "$0")/.."
if [ -n "${LIBTORCH:-}" ] && [ "$LIBTORCH" != "$PWD/.libtorch/torch" ]; then exit 0; fi
lib=.libtorch/nvidia/cu13/lib
[ ! -f $lib/libnvrtc.so.13 ] || exit 0

echo "nvrtc: installing (90 MB)" >&2
part=$(mktemp -d "$PWD/.libtorch/part.XXXXXX")
trap 'rm -rf "$part"' EXIT
trap 'exit 130' INT TERM HUP
PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$part" \
    --only-binary=:all: --platform "manylinux2014_$(uname -m)" --platform "manylinux_2_17_$(uname -m)" \
    --platform "manylinux_2_12_$(uname -m)" --platform "manylinux2010_$(uname -m)" nvidia-cuda-nvrtc==13.0.88 || {
    echo "error: pip cannot install nvidia-cuda-nvrtc 13.0.88 (see above)" >&2
    echo "hint: check the network and pip's settings; plain \`cargo test --release\` does without it" >&2
    exit 2
}
rm -f "$part"/nvidia/cu13/lib/*.alt.*
# The compiler itself comes last: what is there is complete.
mv "$part"/nvidia/cu13/lib/libnvrtc-builtins.so.13.0 "$part"/nvidia/cu13/lib/libnvrtc.so.13 $lib/
