#!/bin/sh
# `gen serve` as its users meet it: OpenAI's clients for Python and Node from their registries, the page in jsdom and
# in headless Chromium where one is installed, and the end after SIGTERM. The clients are kept in target/web.
set -eu

cd "$(dirname "$0")/.."
WEB=target/web
PYTHON_CLIENT='openai>=3,<4'
NODE_PACKAGES='openai@7 jsdom@26'

${CARGO:-cargo} build --release
mkdir -p "$WEB"
[ -x "$WEB/venv/bin/python" ] || python3 -m venv "$WEB/venv" || echo "no virtual environment can be made"
"$WEB/venv/bin/python" -c 'import openai' 2>/dev/null || "$WEB/venv/bin/pip" -q install "$PYTHON_CLIENT" ||
    echo "openai for Python cannot be installed"

KEY=sk-test-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
echo "$KEY" > "$WEB/keys"
target/release/gen serve --port 0 --queue 12 --slots 2 --api-key-file "$WEB/keys" \
    --model imagenet56-64 --alias gpt-image-1=imagenet56-64 > "$WEB/stdout" 2> "$WEB/stderr" &
SERVER=$!
trap 'kill -9 $SERVER 2>/dev/null || true' EXIT
ADDRESS=
for _ in $(seq 100); do
    ADDRESS=$(sed -n 's/^listening on \(http.*\)\/$/\1/p' "$WEB/stdout")
    [ -z "$ADDRESS" ] || break
    sleep 0.1
done
[ -n "$ADDRESS" ] || { cat "$WEB/stderr" >&2; exit 1; }
export ADDRESS KEY

if "$WEB/venv/bin/python" -c 'import openai' 2>/dev/null; then
    "$WEB/venv/bin/python" tests/web/client.py
else
    echo "openai for Python: skipped"
fi

# The packages are for Node 20 and later.
if command -v npm >/dev/null 2>&1 && [ "$(node -p 'process.versions.node.split(".")[0]')" -ge 20 ]; then
    # shellcheck disable=SC2086
    [ -d "$WEB/node_modules/jsdom" ] || npm install --silent --no-fund --no-audit --prefix "$WEB" $NODE_PACKAGES ||
        echo "packages for Node cannot be installed"
fi
if [ -d "$WEB/node_modules/jsdom" ] && [ -d "$WEB/node_modules/openai" ]; then
    for test in client page; do
        cp "tests/web/$test.mjs" "$WEB/"
        node "$WEB/$test.mjs"
    done
else
    echo "Node: skipped; it needs npm, and Node 20 or later"
fi

CHROMIUM=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
if [ -n "$CHROMIUM" ]; then
    for size in 1280,900 390,844; do
        "$CHROMIUM" --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars --window-size="$size" \
            --virtual-time-budget=8000 --screenshot="$PWD/$WEB/page-$size.png" "$ADDRESS/" 2>/dev/null
    done
    "$CHROMIUM" --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --virtual-time-budget=8000 --dump-dom "$ADDRESS/" \
        2>/dev/null | grep -q '<p id="state"[^>]*>Not ready' # its script ran, and asks for a key
    echo "page: ok, shown in $WEB/page-*.png"
else
    echo "page: skipped, since no Chromium is installed"
fi

kill -TERM $SERVER
STATUS=0
wait $SERVER || STATUS=$?
trap - EXIT
[ "$STATUS" = 0 ] || { echo "gen serve ended with $STATUS after SIGTERM" >&2; exit 1; }
! grep -q 'golden retriever' "$WEB/stderr" || { echo "the log has a prompt" >&2; exit 1; }
echo "end after SIGTERM: ok"
