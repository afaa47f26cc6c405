#!/usr/bin/env python3
"""`gen bench` and eager PyTorch (`eager.py`) on the same work, one after the other on the same threads, in several rounds;
the fastest run of each counts. Prints a Markdown table and one JSON line.

    python3 bench/compare.py --gen target/release/gen --threads 2 --rounds 3

The Python that runs this must have torch (any 2.x, CPU). Two rounds take 20 to 60 minutes on two cores; `--only` picks parts
of it: sample, encode, decode, train. `--cpu` compares processor seconds instead of the clock, for a machine that is not
quiet (then with `--threads 1`, since waiting threads are counted too). `--eager fp32` leaves PyTorch's bf16 out, which takes
forever where the processor has no instructions for it.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TOKENIZER = str(ROOT / "configs/tokenizer/gigatok-ss256.yaml")
# work → (eager's name, eager's batches, our batches, our precisions)
WORK = {
    "sample": ("gpt", [1, 4, 16], [1, 4, 16], "fp32,bf16,int8"),
    "encode": ("encode", [1], [1, 8], "fp32,bf16"),
    "decode": ("decode", [1], [1, 8], "fp32,bf16"),
    "train": ("train", [8], [8], "fp32,bf16"),
}


def ours(args, work, batches, precisions):
    model = "llamagen-b-256" if work == "train" else "gigatok-gpt-b"  # eager's steps are of the former, with RoPE
    models = ["--model", str(ROOT / f"configs/ar/{model}.yaml"), "--tokenizer", TOKENIZER]
    command = [args.gen, "bench", "--work", work, "--precision", precisions, "--cfg", "1.75", *models,
               "--batch-size", ",".join(map(str, batches)), "--repeat", "1", "--threads", str(args.threads),
               "--device", "cpu"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    report = json.loads(out.strip().splitlines()[-1])
    key = "cpu_seconds" if args.cpu else "seconds"
    return report["machine"], {(r["precision"], r["batch"]): r[key] for r in report["rows"]}


def eager(args, work, batches):
    command = [sys.executable, str(HERE / "eager.py"), "--work", work, "--repeat", "1", "--precision", args.eager,
               "--batch", ",".join(map(str, batches)), "--threads", str(args.threads)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = [json.loads(line) for line in out.splitlines()]
    return {(r["precision"], r["batch"]): r["cpu_seconds" if args.cpu else "seconds"] for r in rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gen", default=str(ROOT / "target/release/gen"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="sample,encode,decode,train")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--eager", default="fp32,bf16", help="kinds that PyTorch runs in")
    parser.add_argument("--ours", help="kinds that gen runs in, else all it knows")
    args = parser.parse_args()
    results = []
    print("| work | batch | PyTorch fp32 | PyTorch bf16 | ours | seconds | an image | times the same precision | times the better |")
    print("|---|---|---|---|---|---|---|---|---|")
    for work in args.only.split(","):
        name, their_batches, our_batches, precisions = WORK[work]
        best_ours, best_theirs = {}, {}
        for _ in range(args.rounds):  # alternating, so that both meet the same weather
            for into, found in ((best_theirs, eager(args, name, their_batches)),
                                (best_ours, ours(args, work, our_batches, args.ours or precisions)[1])):
                for key, seconds in found.items():
                    into[key] = min(seconds, into.get(key, seconds))
        for (precision, batch), seconds in sorted(best_ours.items(), key=lambda item: (item[0][1], item[0][0])):
            share = batch if batch not in their_batches else 1  # a batch that eager did not run counts by image
            reference = 1 if share > 1 else batch
            theirs = {p: best_theirs[(p, reference)] * share for p in args.eager.split(",")}
            same = theirs[precision] / seconds if precision in theirs else None
            row = dict(work=work, batch=batch, precision=precision, seconds=seconds, eager=theirs,
                       times_same=same, times_better=min(theirs.values()) / seconds)
            results.append(row)
            eager_seconds = " | ".join(f"{theirs[p]:.2f}" if p in theirs else "-" for p in ("fp32", "bf16"))
            print(f"| {work} | {batch} | {eager_seconds} | {precision} | {seconds:.2f} "
                  f"| {seconds / batch:.3f} | {f'{same:.2f}' if same else '-'} | {row['times_better']:.2f} |", flush=True)
    machine, _ = ours(args, "decode", [1], "fp32")
    print(json.dumps(dict(machine=machine, threads=args.threads, rounds=args.rounds,
                          clock="processor" if args.cpu else "wall", rows=results)))


if __name__ == "__main__":
    main()
