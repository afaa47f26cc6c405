#!/usr/bin/env python3
"""Seconds of a training step of GigaTok's S-S tokenizer by the official PyTorch code, eager: forward with the auxiliary
shortcut, squared errors and quantizer losses, backward, clipping, fused AdamW.

    python3 bench/tokenizer_step.py GIGATOK_CHECKOUT [BATCH] [fp32|bf16] [STEPS] [THREADS]

Ours, with the same terms; `seconds/*` in the run's log.jsonl are to be added up, of the steps after the first:

    gen train-tokenizer --recipe configs/train/gigatok-ss256.yaml --data PICTURES --output RUN --threads THREADS \
        losses.perceptual=null losses.semantic=null losses.adversarial=null optimization.batch_size=BATCH \
        optimization.micro_batches=1 optimization.steps=STEPS optimization.precision=fp32 \
        every.log=1 every.samples=0 every.validate=0
"""

import sys
import time

import torch
import torch.nn.functional as F
import yaml

official = sys.argv[1]
batch, precision, steps, threads = ([*sys.argv[2:], *["2", "fp32", "3", "2"][len(sys.argv) - 2:]])[:4]
sys.path.insert(0, official)
from tokenizer.tokenizer_image.vq.vq_vit_model import VQVitModelPlus, VQVitModelPlusArgs  # noqa: E402

torch.set_num_threads(int(threads))
torch.manual_seed(0)
config = yaml.safe_load(open(f"{official}/configs/vq/VQ_SS256.yaml"))
model = VQVitModelPlus(VQVitModelPlusArgs(**config["model"]["init_args"])).train()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=1e-4, fused=True)
model.quantize.codebook_used.requires_grad_(False)  # a parameter upstream
images = torch.rand(int(batch), 3, 256, 256) * 2 - 1


def step():
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        (decoded, direct), (quantizer, features) = model(images)
        vq, commitment, entropy = quantizer[0], quantizer[1], quantizer[2]
        loss = F.mse_loss(decoded.float(), images) + F.mse_loss(direct.float(), images)
        loss = loss + vq + commitment + entropy + features
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    optimizer.step()


step()  # the first allocates
for _ in range(int(steps) - 1):
    clock, cpu = time.perf_counter(), time.process_time()
    step()
    print(f"{time.perf_counter() - clock:.2f} s, {time.process_time() - cpu:.2f} processor seconds", flush=True)
