#!/bin/sh
# Says in one sentence which tool is missing, before a long build finds out.
set -eu

need() {
    echo "error: $1" >&2
    echo >&2
    echo "hint: $2" >&2
    exit 2
}

command -v "${CARGO:-cargo}" >/dev/null 2>&1 ||
    need "cargo is missing, which builds this" "install Rust with rustup: https://rustup.rs"
command -v "${CXX:-c++}" >/dev/null 2>&1 ||
    need "no C++ compiler (\`${CXX:-c++}\`) is here; the binding to libtorch needs one" \
        "install it: \`apt install g++\`, or your system's like"
command -v cc >/dev/null 2>&1 ||
    need "no C compiler driver (\`cc\`) is here; Rust links with it" \
        "install it: \`apt install gcc\`, or your system's like"
