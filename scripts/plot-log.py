#!/usr/bin/env python3
"""Draws loss curves from a training run's log.jsonl.   plot-log.py OUT.png KEY[,KEY…]=LOG [KEY[,KEY…]=LOG …]

Needs matplotlib. One panel for each argument; every key is a curve against the step.
"""
import json
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def curve(log, key):
    with open(log) as lines:
        rows = [json.loads(line) for line in lines]
    points = [(r["step"], r[key]) for r in rows if key in r]
    return [p[0] for p in points], [p[1] for p in points]


def main(out, panels):
    figure, axes = plt.subplots(1, len(panels), figsize=(5.5 * len(panels), 3.6), squeeze=False)
    for axis, panel in zip(axes[0], panels):
        keys, log = panel.split("=", 1)
        for key in keys.split(","):
            steps, values = curve(log, key)
            axis.plot(steps, values, label=key, linewidth=1, marker="o" if len(steps) < 20 else None, markersize=3)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
