"""Times optimizer steps of a transformer in PyTorch eager mode, for comparison with `gen bench --work train`.

step.py SIZE BATCH fp32|bf16 STEPS, SIZE `gpt-b` (LlamaGen's, 2-D RoPE, 256 codes of 16384) or `gpt-64` (learned
positions, 64 codes of 1024). bf16 is autocast over fp32 weights, the optimizer fused AdamW, as in the official trainers.
Prints the CPU and wall seconds of the fastest step after the first, and the peak memory.
"""

import contextlib
import resource
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        y = x.float()
        return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-5)).type_as(x) * self.weight


def rotate(x, table):
    pairs = x.float().reshape(*x.shape[:-1], -1, 2)
    cos, sin = table[..., 0], table[..., 1]
    a, b = pairs[..., 0], pairs[..., 1]
    return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(3).type_as(x)


class Block(nn.Module):
    def __init__(self, width, heads, dropout):
        super().__init__()
        hidden = (8 * width // 3 + 255) // 256 * 256
        self.heads = heads
        self.wqkv = nn.Linear(width, 3 * width, bias=False)
        self.wo = nn.Linear(width, width, bias=False)
        self.w1 = nn.Linear(width, hidden, bias=False)
        self.w3 = nn.Linear(width, hidden, bias=False)
        self.w2 = nn.Linear(hidden, width, bias=False)
        self.attention_norm, self.ffn_norm = RMSNorm(width), RMSNorm(width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x, table):
        b, s, d = x.shape
        q, k, v = (
            t.view(b, s, self.heads, -1).transpose(1, 2) for t in self.wqkv(self.attention_norm(x)).split(d, dim=-1)
        )
        if table is not None:
            q, k = rotate(q, table), rotate(k, table)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.drop(self.wo(y.transpose(1, 2).reshape(b, s, d)))
        n = self.ffn_norm(x)
        return x + self.drop(self.w2(F.silu(self.w1(n)) * self.w3(n)))


class Gpt(nn.Module):
    def __init__(self, width, layers, heads, vocabulary, codes, dropout, rope):
        super().__init__()
        self.classes = nn.Embedding(1001, width)
        self.codes = nn.Embedding(vocabulary, width)
        self.positions = None if rope else nn.Parameter(torch.randn(1 + codes, width) * width**-0.5)
        self.table = None
        if rope:
            side, half = round(codes**0.5), width // heads // 2
            theta = 10000.0 ** -(torch.arange(0, half, 2) / half)
            angles = torch.arange(side)[:, None] * theta
            grid = torch.cat([angles[:, None].expand(-1, side, -1), angles[None].expand(side, -1, -1)], -1).flatten(0, 1)
            self.table = torch.cat([torch.zeros(1, half, 2), torch.stack([grid.cos(), grid.sin()], -1)])[:codes]
        self.drop = nn.Dropout(dropout)
        self.layers = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = RMSNorm(width)
        self.output = nn.Linear(width, vocabulary, bias=False)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)

    def forward(self, classes, codes):
        drop = torch.rand(len(classes)) < 0.1
        classes = torch.where(drop, 1000, classes)
        x = torch.cat([self.classes(classes)[:, None], self.codes(codes[:, :-1])], 1)
        if self.positions is not None:
            x = x + self.positions[: x.shape[1]]
        x = self.drop(x)
        for layer in self.layers:
            x = layer(x, self.table)
        logits = self.output(self.norm(x)).float()
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), codes.reshape(-1))


SIZES = {
    "gpt-b": dict(width=768, layers=12, heads=12, vocabulary=16384, codes=256, dropout=0.1, rope=True),
    "gpt-64": dict(width=256, layers=6, heads=4, vocabulary=1024, codes=64, dropout=0.0, rope=False),
}


def make_step(size, batch, narrow):
    """A function that makes one step: forward, backward, clipping, AdamW."""
    torch.manual_seed(0)
    config = SIZES[size]
    model = Gpt(**config)
    groups = [
        {"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": 0.05},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95), fused=True)
    codes = torch.randint(config["vocabulary"], (batch, config["codes"]))
    classes = torch.randint(1000, (batch,))

    def step():
        with torch.autocast("cpu", torch.bfloat16) if narrow else contextlib.nullcontext():
            loss = model(classes, codes)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def main(size, batch, precision, steps):
    step, steps = make_step(size, int(batch), precision == "bf16"), int(steps)
    cpu, wall = [], []
    for _ in range(steps + 1):
        before = time.process_time(), time.perf_counter()
        step()
        cpu.append(time.process_time() - before[0])
        wall.append(time.perf_counter() - before[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"cpu {min(cpu[1:]):.4f} wall {min(wall[1:]):.4f} peak {peak:.0f}")


if __name__ == "__main__":
    main(*sys.argv[1:5])
