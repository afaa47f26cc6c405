#!/usr/bin/env python3
"""Draws the mean power spectra of folders of pictures.   spectrum.py OUT.svg NAME=FOLDER [NAME=FOLDER …]

Needs numpy and Pillow. Pictures are square and of one size, such as `gen reconstruct` writes. A network that computes
neighbouring pixels by different weights leaves peaks at 1/2, 1/4, … cycles a pixel; the table sets each beside its
neighbours, where natural pictures have about the same.
"""
import sys
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = ["#222222", "#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e"]
WIDTH, HEIGHT, MARGIN = 380, 260, 46
# 10^LOW to 10^HIGH of power
LOW, HIGH = -4.5, 3.5


def power(folder):
    """Mean power of brightness in [-1, 1] by frequency, (N, N)."""
    total, count = 0, 0
    for path in sorted(Path(folder).iterdir()):
        if path.suffix.lower() in {".png", ".jpg", ".jpeg"} and path.stem != "sheet":
            x = np.asarray(Image.open(path).convert("RGB"), float).mean(2) / 127.5 - 1
            total = total + np.abs(np.fft.fft2(x - x.mean())) ** 2 / x.size
            count += 1
    if count == 0:
        sys.exit(f"{folder} has no pictures")
    return total / count


def lines(p):
    """Power along the axes and along the diagonal, at k / N cycles a pixel for k from 1 to N / 2."""
    k = np.arange(1, len(p) // 2 + 1)
    return {"along rows and columns": (p[0, k] + p[k, 0]) / 2, "along the diagonal": p[k, k]}


def peak(curve, k):
    """A frequency's power, and the median of those near it."""
    near = [curve[j - 1] for j in (k - 3, k - 2, k + 2, k + 3) if 1 <= j <= len(curve)]
    return curve[k - 1], float(np.median(near))


def panel(left, title, curves):
    x = lambda f: left + MARGIN + f / 0.5 * WIDTH
    y = lambda v: 30 + (HIGH - np.log10(np.clip(v, 10**LOW, 10**HIGH))) / (HIGH - LOW) * HEIGHT
    out = [f'<text x="{x(0.25)}" y="18" text-anchor="middle">power {title}</text>']
    for f in (0, 0.125, 0.25, 0.375, 0.5):
        out.append(f'<path d="M{x(f)} 30V{30 + HEIGHT}" stroke="#ddd"/>')
        out.append(f'<text x="{x(f)}" y="{46 + HEIGHT}" text-anchor="middle">{f:g}</text>')
    for e in range(int(np.ceil(LOW)), int(HIGH) + 1):
        out.append(f'<path d="M{x(0)} {y(10.0**e):.1f}H{x(0.5)}" stroke="#ddd"/>')
        out.append(f'<text x="{x(0) - 4}" y="{y(10.0**e) + 4:.1f}" text-anchor="end">1e{e}</text>')
    for colour, curve in zip(COLOURS, curves):
        n = 2 * len(curve)
        points = " ".join(f"{x((i + 1) / n):.1f},{y(v):.1f}" for i, v in enumerate(curve))
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.4"/>')
    out.append(f'<text x="{x(0.25)}" y="{62 + HEIGHT}" text-anchor="middle">cycles a pixel</text>')
    return out


def main(out, named):
    spectra = {name: lines(power(folder)) for name, folder in (n.split("=", 1) for n in named)}
    body = []
    for i, kind in enumerate(["along rows and columns", "along the diagonal"]):
        body += panel(i * (WIDTH + MARGIN + 20), kind, [s[kind] for s in spectra.values()])
    for i, (colour, name) in enumerate(zip(COLOURS, spectra)):
        body.append(f'<text x="{MARGIN + 160 * i}" y="{90 + HEIGHT}" fill="{colour}">{name}</text>')
    width, height = 2 * (WIDTH + MARGIN + 20), 104 + HEIGHT
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">'
    back = f'<rect width="{width}" height="{height}" fill="white"/>'
    Path(out).write_text("\n".join([head, back, *body, "</svg>"]) + "\n")
    print(f"{'':24} {'frequency':>10} {'power':>10} {'near it':>10}")
    for name, kinds in spectra.items():
        for kind, curve in kinds.items():
            for part in (4, 2):
                value, near = peak(curve, 2 * len(curve) // part)
                mark = f"1/{part}" if "rows" in kind else f"1/{part},1/{part}"
                print(f"{name:24} {mark:>10} {value:10.4f} {near:10.4f}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
