#!/usr/bin/env python3
"""The same work in straightforward eager PyTorch: what `gen bench` is compared with.

Shapes of GPT-B (LlamaGen, GigaTok: 12 layers of 768, 16,384 codes, 256 to an image) and of the S-S tokenizer of GigaTok
(VQ_SS256), random weights, written as the official code does the work: one linear after the other, a cache written in
place, full softmax and `multinomial`, float32 or bfloat16 throughout, NCHW. Only torch is needed.

    python3 bench/eager.py --work gpt,encode,decode,train --precision fp32,bf16 --batch 1 --threads 2
"""

import argparse
import json
import time

import torch
import torch.nn.functional as F
from torch import nn

from step import make_step


def find_multiple(n, k):
    return n if n % k == 0 else n + k - n % k


class RMSNorm(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, x):
        f = x.float()
        return (f * torch.rsqrt(f.pow(2).mean(-1, keepdim=True) + 1e-5)).type_as(x) * self.weight


class GptBlock(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        hidden = find_multiple(int(2 * 4 * d / 3), 256)
        self.heads = heads
        self.wqkv, self.wo = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d, bias=False)
        self.w1, self.w3 = nn.Linear(d, hidden, bias=False), nn.Linear(d, hidden, bias=False)
        self.w2 = nn.Linear(hidden, d, bias=False)
        self.attention_norm, self.ffn_norm = RMSNorm(d), RMSNorm(d)

    def forward(self, x, cache, position, mask):
        b, s, d = x.shape
        q, k, v = self.wqkv(self.attention_norm(x)).split([d, d, d], dim=-1)
        q, k, v = (t.view(b, s, self.heads, d // self.heads).transpose(1, 2) for t in (q, k, v))
        cache[0][:, :, position], cache[1][:, :, position] = k, v
        y = F.scaled_dot_product_attention(q, *cache, attn_mask=mask)
        h = x + self.wo(y.transpose(1, 2).reshape(b, s, d))
        n = self.ffn_norm(h)
        return h + self.w2(F.silu(self.w1(n)) * self.w3(n))


class Gpt(nn.Module):
    def __init__(self, layers=12, d=768, heads=12, vocab=16384, tokens=256, classes=1000):
        super().__init__()
        self.cls = nn.Embedding(classes + 1, d)
        self.tok = nn.Embedding(vocab, d)
        self.pos = nn.Parameter(torch.randn(1, tokens + 1, d) * 0.02)
        self.layers = nn.ModuleList(GptBlock(d, heads) for _ in range(layers))
        self.norm = RMSNorm(d)
        self.output = nn.Linear(d, vocab, bias=False)
        self.tokens, self.heads, self.width, self.classes = tokens, heads, d, classes

    def step(self, x, position, caches, causal):
        x = x + self.pos[:, position]
        mask = causal[position]
        for layer, cache in zip(self.layers, caches):
            x = layer(x, cache, position, mask)
        return self.output(self.norm(x)).float()

    @torch.no_grad()
    def generate(self, labels, scale, top_k=0):
        b = labels.shape[0]
        rows, dtype = 2 * b, self.pos.dtype
        length = find_multiple(self.tokens + 1, 8)
        shape = (rows, self.heads, length, self.width // self.heads)
        caches = [(torch.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=dtype)) for _ in self.layers]
        causal = torch.tril(torch.ones(length, length, dtype=torch.bool))
        x = self.cls(torch.cat([labels, torch.full_like(labels, self.classes)])).unsqueeze(1)
        codes = []
        for t in range(self.tokens):
            logits = self.step(x, torch.tensor([t]), caches, causal)[:, -1]
            cond, uncond = logits.chunk(2)
            logits = uncond + (cond - uncond) * scale
            if top_k:
                logits[logits < logits.topk(top_k)[0][:, -1:]] = -float("inf")
            code = torch.multinomial(F.softmax(logits, -1), 1)
            codes.append(code)
            x = self.tok(torch.cat([code, code]))
        return torch.cat(codes, 1)


def group_norm(c):
    return nn.GroupNorm(32, c, eps=1e-6)


class ResBlock(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.norm1, self.conv1 = group_norm(a), nn.Conv2d(a, b, 3, padding=1)
        self.norm2, self.conv2 = group_norm(b), nn.Conv2d(b, b, 3, padding=1)
        self.short = nn.Conv2d(a, b, 1) if a != b else nn.Identity()

    def forward(self, x):
        h = self.conv1(self.swish(self.norm1(x)))
        return self.short(x) + self.conv2(self.swish(self.norm2(h)))

    @staticmethod
    def swish(x):
        return x * torch.sigmoid(x)


class Adaptive(nn.Module):
    def __init__(self, z, c):
        super().__init__()
        self.norm, self.gamma, self.beta = nn.GroupNorm(32, c, eps=1e-6, affine=False), nn.Linear(z, c), nn.Linear(z, c)

    def forward(self, x, style):
        s = style.flatten(2).float()
        scale = self.gamma((s.var(-1) + 1e-6).sqrt().type_as(x))[..., None, None]
        return self.norm(x) * scale + self.beta(s.mean(-1).type_as(x))[..., None, None]


class Encoder(nn.Module):
    def __init__(self, ch=128, mult=(1, 1, 2, 2, 4), z=256):
        super().__init__()
        layers, c = [nn.Conv2d(3, ch, 3, padding=1)], ch
        for i, m in enumerate(mult):
            for _ in range(2):
                layers.append(ResBlock(c, ch * m))
                c = ch * m
            if i + 1 < len(mult):
                layers += [nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(c, c, 3, stride=2)]
        layers += [ResBlock(c, c), ResBlock(c, c), group_norm(c), nn.SiLU(), nn.Conv2d(c, z, 3, padding=1)]
        self.net = nn.Sequential(*layers)

    def forward(self, x):
        return self.net(x)


def depth_to_space(x):
    b, c4, h, w = x.shape
    return x.view(b, 2, 2, c4 // 4, h, w).permute(0, 3, 4, 1, 5, 2).reshape(b, c4 // 4, 2 * h, 2 * w)


class Decoder(nn.Module):
    def __init__(self, ch=128, mult=(4, 2, 2, 1, 1), z=256):
        super().__init__()
        c = ch * mult[0]
        self.head = nn.Sequential(nn.Conv2d(z, c, 3, padding=1), ResBlock(c, c), ResBlock(c, c))
        self.adaptive, self.levels, self.ups = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for i, m in enumerate(mult):
            self.adaptive.append(Adaptive(z, c))
            blocks = []
            for _ in range(3):
                blocks.append(ResBlock(c, ch * m))
                c = ch * m
            self.levels.append(nn.Sequential(*blocks))
            if i + 1 < len(mult):
                self.ups.append(nn.Conv2d(c, 4 * c, 3, padding=1))
        self.tail = nn.Sequential(group_norm(c), nn.SiLU(), nn.Conv2d(c, 3, 3, padding=1))

    def forward(self, z):
        h = self.head(z)
        for i, (adaptive, level) in enumerate(zip(self.adaptive, self.levels)):
            h = level(adaptive(h, z))
            if i < len(self.ups):
                h = depth_to_space(self.ups[i](h))
        return self.tail(h)


class QFormerLayer(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.ln1, self.ln2, self.ln3 = nn.LayerNorm(d), nn.LayerNorm(d), nn.LayerNorm(d)
        self.attn = nn.MultiheadAttention(d, heads, batch_first=True)
        self.cross = nn.MultiheadAttention(d, heads, batch_first=True)
        self.fc1, self.fc2 = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x, keys):
        n = self.ln1(x)
        x = x + self.attn(n, n, n, need_weights=False)[0]
        x = x + self.cross(self.ln2(x), keys, keys, need_weights=False)[0]
        return x + self.fc2(F.gelu(self.fc1(self.ln3(x))))


class Tokenizer(nn.Module):
    """S-S: Q-Formers of 6 layers of 512 with 8 heads, 256 codes of 16,384 entries of 8 numbers."""

    def __init__(self, d=512, layers=6, heads=8, z=256):
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()
        self.up, self.down = nn.Linear(z, d), nn.Linear(d, z)
        self.to_codes = nn.ModuleList(QFormerLayer(d, heads) for _ in range(layers))
        self.quant, self.post = nn.Conv2d(z, 8, 1), nn.Conv2d(8, z, 1)
        self.codebook = nn.Embedding(16384, 8)
        self.embed, self.conv_out = nn.Linear(z, d), nn.Conv2d(d, z, 3, padding=1)
        self.to_grid = nn.ModuleList(QFormerLayer(d, heads) for _ in range(layers))

    @torch.no_grad()
    def encode(self, x):
        keys = self.up(self.encoder(x).flatten(2).transpose(1, 2))
        t = keys
        for layer in self.to_codes:
            t = layer(t, keys)
        z = self.quant(self.down(t).transpose(1, 2).unsqueeze(2)).flatten(2).transpose(1, 2).float()
        z, book = F.normalize(z.reshape(-1, 8), dim=-1), F.normalize(self.codebook.weight.float(), dim=-1)
        distance = z.pow(2).sum(1, keepdim=True) + book.pow(2).sum(1) - 2 * z @ book.t()
        return distance.argmin(1).view(x.shape[0], -1)

    @torch.no_grad()
    def decode(self, codes):
        z = F.normalize(self.codebook(codes), dim=-1).type_as(self.embed.weight)
        x = self.embed(self.post(z.transpose(1, 2).unsqueeze(2)).flatten(2).transpose(1, 2))
        t = x[:, :1].expand(-1, 256, -1)
        for layer in self.to_grid:
            t = layer(t, x)
        return self.decoder(self.conv_out(t.transpose(1, 2).reshape(-1, t.shape[-1], 16, 16)))


def work_gpt(dtype, batch, args):
    model = Gpt().to(dtype).eval()
    labels = torch.arange(batch) % 1000
    return lambda: model.generate(labels, 1.75, args.top_k)


def work_train(dtype, batch, args):
    return make_step("gpt-b", batch, dtype == torch.bfloat16)


def work_encode(dtype, batch, args):
    model, x = Tokenizer().to(dtype).eval(), torch.rand(batch, 3, 256, 256).to(dtype) * 2 - 1
    return lambda: model.encode(x)


def work_decode(dtype, batch, args):
    model, codes = Tokenizer().to(dtype).eval(), torch.randint(16384, (batch, 256))
    return lambda: model.decode(codes)


WORK = {"gpt": work_gpt, "train": work_train, "encode": work_encode, "decode": work_decode}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", default="gpt,encode,decode")
    parser.add_argument("--precision", default="fp32,bf16")
    parser.add_argument("--batch", default="1")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeat", type=int, default=2, help="timed runs after one that is discarded")
    parser.add_argument("--top-k", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    for work in args.work.split(","):
        for precision in args.precision.split(","):
            for batch in map(int, args.batch.split(",")):
                dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
                run = WORK[work](dtype, batch, args)
                seconds, cpu = [], []
                for i in range(args.repeat + 1):
                    wall, process = time.perf_counter(), time.process_time()
                    run()
                    if i > 0 or args.repeat == 0:
                        seconds.append(time.perf_counter() - wall)
                        cpu.append(time.process_time() - process)
                line = dict(work=work, precision=precision, batch=batch, threads=args.threads,
                            seconds=round(min(seconds), 4), cpu_seconds=round(min(cpu), 4))
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
