#!/usr/bin/env python3
"""Shows samples beside the training pictures nearest to them, and says how near they are.

    nearest.py OUT.png SAMPLES.npz TRAINING.npz HELD_OUT.npz [--root FOLDER] [--shown 32]

The three files are of one `gen features`; its names are looked for below the folder where that ran (--root). Distances are
Euclidean between pooled features. A model that repeats its training pictures has samples that are nearer to one of
them than held-out pictures are. Needs numpy and Pillow.
"""
import argparse
from pathlib import Path

import numpy as np
from PIL import Image

COLUMNS = 8


def read(path):
    held = np.load(path)
    names = [n.decode() if isinstance(n, bytes) else str(n) for n in held["names"]]
    return np.asarray(held["pool"], np.float32), names


def nearest(queries, pool, chunk=256):
    """Index and distance of each query's nearest row of the pool."""
    squares = (pool**2).sum(1)
    found, distances = [], []
    for start in range(0, len(queries), chunk):
        q = queries[start : start + chunk]
        d = (q**2).sum(1, keepdims=True) - 2 * q @ pool.T + squares
        best = d.argmin(1)
        found.append(best)
        distances.append(np.sqrt(np.maximum(d[np.arange(len(q)), best], 0)))
    return np.concatenate(found), np.concatenate(distances)


def main():
    arguments = argparse.ArgumentParser(usage=__doc__)
    arguments.add_argument("out")
    arguments.add_argument("samples")
    arguments.add_argument("training")
    arguments.add_argument("held_out")
    arguments.add_argument("--root", default=".")
    arguments.add_argument("--shown", type=int, default=32)
    args = arguments.parse_args()
    (samples, sample_names), (pool, pool_names) = read(args.samples), read(args.training)
    index, distance = nearest(samples, pool)
    _, real = nearest(read(args.held_out)[0], pool)

    # Which share of pairs of a sample and a held-out picture has the sample nearer.
    nearer = np.searchsorted(np.sort(real), distance, side="right")
    share = 1 - nearer.mean() / len(real)
    low = np.quantile(real, 0.01)
    print(f"{len(samples)} samples, {len(pool)} training and {len(real)} held-out pictures")
    print(f"distance to the nearest training picture, median: samples {np.median(distance):.3f}, held-out {np.median(real):.3f}")
    print(f"a sample is nearer to one than a held-out picture is, in {100 * share:.1f} % of all pairs")
    print(f"samples below the nearest 1 % of the held-out pictures ({low:.3f}): {100 * (distance < low).mean():.1f} %")

    # The samples that are shown are spread over all of them, in order.
    shown = np.linspace(0, len(samples) - 1, min(args.shown, len(samples))).round().astype(int)
    pictures = []
    for i in shown:
        for name in (sample_names[i], pool_names[index[i]]):
            pictures.append(Image.open(Path(args.root) / name).convert("RGB"))
    side, rows = pictures[0].size, -(-len(pictures) // (2 * COLUMNS))
    pair = 2 * side[0] + 8
    sheet = Image.new("RGB", (COLUMNS * pair, rows * (side[1] + 4)), "white")
    for k, picture in enumerate(pictures):
        column, row = (k // 2) % COLUMNS, k // 2 // COLUMNS
        sheet.paste(picture.resize(side), (column * pair + (k % 2) * side[0], row * (side[1] + 4)))
    sheet.save(args.out)


if __name__ == "__main__":
    main()
