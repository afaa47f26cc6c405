"""Makes the training dictionaries beside this file (torch 2.11, numpy 2). The other files are the goldens
`eval/{legacy_state,zip_state}.pth` and `eval/file_formats.safetensors`."""

import argparse
import collections
import pathlib

import numpy as np
import torch
import torch._utils


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


class OnAnotherDevice:
    """As XLA's tensors are saved."""

    def __reduce__(self):
        args = (np.ones((2, 3), np.float32), torch.float32, "xla:0", False)
        return torch._utils._rebuild_device_tensor_from_numpy, args


class Subclass(torch.Tensor):
    """A tensor that is nothing more."""


class DTensor:
    """As torch.distributed's, whose local part is no weight."""

    def __reduce__(self):
        wrapped = (DTensor, torch.float32, (4, 3), (3, 1), 0, torch.strided, torch.device("cpu"), False)
        state = {"_local_tensor": torch.ones(2, 3)}
        return torch._tensor._rebuild_from_type_v2, (torch._utils._rebuild_wrapper_subclass, DTensor, wrapped, state)


class Config:
    """As OmegaConf's: it contains itself."""

    def __init__(self):
        self.parent = self


class Slots:
    """An object that keeps a tensor in a slot."""

    __slots__ = ["tensor"]

    def __init__(self):
        self.tensor = torch.ones(2)


class Dictionary(dict):
    """A dictionary of another class."""


def forms():
    dense = torch.arange(12.0).view(3, 4)
    deep = 0
    for _ in range(300):
        deep = [deep]
    weights = {
        "plain": dense,
        "subclass": dense.as_subclass(Subclass),
        "inner": Dictionary(bias=torch.ones(3)),
        "quantized": torch.quantize_per_tensor(dense, 0.1, 10, torch.qint8),
        "sparse": dense.to_sparse(),
        "csr": dense.to_sparse_csr(),
        "numpy": dense.numpy(),
        "meta": dense.to("meta"),
        "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        "xla": OnAnotherDevice(),
        "negative": torch.imag(torch.tensor([1 + 2j]).conj()),
        "complex": torch.tensor([1 + 2j]),
        "fp8": torch.zeros(2, dtype=torch.float8_e4m3fn).as_subclass(Subclass),
        "uint16": torch.zeros(2, dtype=torch.uint16).as_subclass(Subclass),
        "dtensor": DTensor(),
        "storage": torch.ones(2).untyped_storage(),
        "slots": Slots(),
        1: torch.ones(2),
        "1": torch.ones(2),
    }
    return {
        "model": weights,
        "ema": {"decay": 0.999, "updates": torch.tensor(3)},
        "module": torch.nn.Sequential(torch.nn.Linear(3, 2)),
        "config": Config(),
        "deep": deep,
        "steps": 7,
    }


if __name__ == "__main__":
    torch.save(forms(), "forms.pt")
    torch.save(torch.nn.Linear(3, 2), "whole_module.pt")
    torch.save(training(), "training_zip2.pt")
    torch.save(training(), "training_zip4.pt", pickle_protocol=4)
    torch.save(training(), "training_legacy2.pt", _use_new_zipfile_serialization=False)
    torch.save(
        {"w": torch.zeros(2, dtype=torch.float8_e4m3fn), "v": torch.zeros(2, dtype=torch.uint16), "x": torch.ones(2)},
        "unreadable.pt",
    )
