#!/bin/sh
# Installs libtorch into .libtorch/ of this checkout, from PyPI. With CUDA=1, the set with all CUDA libraries.
#
# The wheel of PyTorch carries libtorch's headers and libraries; nothing of it is run with Python. A second run
# does nothing. A run that is stopped leaves no .libtorch behind, because the folder gets its name last.
set -eu

VERSION=2.11.0
# libtorch_cpu.so of this wheel needs these two and finds them beside itself.
CPU_SET="torch==$VERSION nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85"
CUDA_SET="torch==$VERSION"
# Headers (1 MB) with which the program learns to record CUDA graphs, wherever it is built.
HEADERS="nvidia-cuda-crt==13.0.88"

cd "$(dirname "$0")/.."
case "${CUDA:-0}" in 0 | '') SET=cpu ;; *) SET=cuda ;; esac

say() { echo "libtorch: $*" >&2; }
die() {
    echo "error: $1" >&2
    echo >&2
    echo "hint: $2" >&2
    exit 2
}

# True if directory $1 holds the wanted version and at least the wanted set.
holds() {
    [ -f "$1/torch/lib/libtorch_cpu.so" ] && [ -f "$1/torch/include/torch/headeronly/version.h" ] || return 1
    grep -q "^__version__ = '$VERSION" "$1/torch/version.py" 2>/dev/null || return 1
    [ "$SET" = cpu ] || [ "$(cat "$1/set" 2>/dev/null)" = cuda ]
}

if [ -n "${LIBTORCH:-}" ] && [ "$LIBTORCH" != "$PWD/.libtorch/torch" ]; then
    [ -d "$LIBTORCH/lib" ] || die "LIBTORCH is set to \`$LIBTORCH\`, where there is no \`lib\`" \
        "unset LIBTORCH to use this checkout's own"
    say "using LIBTORCH=$LIBTORCH"
    exit 0
fi
if holds .libtorch; then exit 0; fi

[ "$(uname -s)" = Linux ] || die "libtorch can be installed by this script on Linux only" \
    "set LIBTORCH to a libtorch $VERSION of your own"
if python3 -m pip --version >/dev/null 2>&1; then
    pip() { python3 -m pip "$@"; }
elif command -v pip3 >/dev/null 2>&1; then
    pip() { pip3 "$@"; }
elif command -v python3 >/dev/null 2>&1; then
    die "python3 has no pip, which fetches libtorch" "install it: \`apt install python3-pip\`, or your system's like"
else
    die "python3 is missing, whose pip fetches libtorch" \
        "install it: \`apt install python3 python3-pip\`, or your system's like"
fi

# One at a time; the lock ends with this process.
exec 9>.libtorch.lock
if command -v flock >/dev/null 2>&1; then flock 9; fi
if holds .libtorch; then exit 0; fi
rm -rf .libtorch.part.* # of a run that was killed
part=$(mktemp -d "$PWD/.libtorch.part.XXXXXX")
trap 'rm -rf "$part"' EXIT
trap 'exit 130' INT TERM HUP

arch=$(uname -m)
if [ "$SET" = cuda ]; then
    say "installing $VERSION with CUDA (several GB)"
    set -- $CUDA_SET $HEADERS
else
    say "installing $VERSION for the CPU (550 MB)"
    set -- --no-deps $CPU_SET $HEADERS
fi
# The tags make the choice of wheel independent of the Python that happens to be here.
for minor in 28 27 26 25 24 23 22 21 20 19 18 17; do set -- "$@" --platform "manylinux_2_${minor}_$arch"; done
PIP_ROOT_USER_ACTION=ignore pip install --quiet --disable-pip-version-check --target "$part" --only-binary=:all: \
    --implementation cp --python-version 3.12 --platform "manylinux2014_$arch" "$@" || die "pip cannot install torch $VERSION (see above)" \
    "check the network, pip's settings (\`pip config list\`) and the space left on this disk, then run it again"
echo "$SET" >"$part/set"
holds "$part" || die "what pip installed is not libtorch $VERSION" "please report this with pip's version"
chmod 755 "$part"
sync
if [ -e .libtorch ] || [ -L .libtorch ]; then mv -T .libtorch "$part.old"; fi
mv -T "$part" .libtorch
rm -rf "$part.old"
say "installed in .libtorch"
