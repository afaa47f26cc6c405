#!/bin/sh
# Builds the site from docs/, the model cards and the goldens' page into .site/html. Links that leave docs/ become links
# between pages. Needs Python with venv; the generator comes from PyPI.
set -eu
cd "$(dirname "$0")/.."
VERSION=0.0.73
[ -x .site/venv/bin/zensical ] || { python3 -m venv .site/venv && .site/venv/bin/pip -q install "zensical==$VERSION"; }
rm -rf .site/src
mkdir -p .site/src/tests/goldens
cp -r docs/. .site/src
cp tests/goldens/README.md .site/src/tests/goldens/
for model in models/*; do
    mkdir -p ".site/src/$model"
    cp "$model/MODEL_CARD.md" ".site/src/$model/"
    cp -r "$model/images" ".site/src/$model/"
done
sed -i 's#](\.\./models/#](models/#g; s#](\.\./tests/#](tests/#g' .site/src/*.md
exec .site/venv/bin/zensical build -s
