"""Makes the training dictionaries beside this file (torch 2.11, numpy 2). The other files are the goldens
`eval/{legacy_state,zip_state}.pth` and `eval/file_formats.safetensors`."""

import argparse
import collections
import pathlib

import numpy as np
import torch


class Unknown:
    """A class that no reader knows."""

    def __init__(self):
        self.note = "hello"
        self.tensor = torch.full((2,), 9.0)


def model(scale):
    base = torch.arange(24.0) * scale
    weights = collections.OrderedDict()
    weights["module.a.weight"] = base.view(4, 6)
    weights["module.a.tied"] = base.view(4, 6)
    weights["module.b.transposed"] = base.view(4, 6).t()
    weights["module.b.view"] = base[5:].view(19)[::3]
    weights["module.b.parameter"] = torch.nn.Parameter(torch.tensor([1.5, -2.5]) * scale)
    weights["module.c.bf16"] = torch.tensor([1.0, 2.0, 3.0], dtype=torch.bfloat16)
    weights["module.c.count"] = torch.tensor(7)
    weights["module.c.flags"] = torch.tensor([True, False, True])
    weights["module.c.empty"] = torch.zeros(0, 3)
    weights._metadata = {"": {"version": 1}}
    return weights


def training():
    weight = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = torch.optim.AdamW([weight], lr=1e-4)
    weight.sum().backward()
    optimizer.step()
    args = argparse.Namespace(lr=1e-4, betas=(0.9, 0.95), name="run ü", resume=None, sizes=[1, 2], big=2**70)
    return {
        "model": model(1.0),
        "optimizer": optimizer.state_dict(),
        "steps": 1234,
        "best": np.float64(0.125),
        "count": np.int64(-5),
        "args": args,
        "path": pathlib.PurePosixPath("a/b"),
        "unknown": Unknown(),
        "ema": model(2.0),
    }


if __name__ == "__main__":
    torch.save(training(), "training_zip2.pt")
    torch.save(training(), "training_zip4.pt", pickle_protocol=4)
    torch.save(training(), "training_legacy2.pt", _use_new_zipfile_serialization=False)
    torch.save(
        {"w": torch.zeros(2, dtype=torch.float8_e4m3fn), "v": torch.zeros(2, dtype=torch.uint16), "x": torch.ones(2)},
        "unreadable.pt",
    )
