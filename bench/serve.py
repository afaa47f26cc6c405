#!/usr/bin/env python3
"""Load on `gen serve`, with nothing but Python: throughput beside `gen sample`, equality of bytes with it, overload, clients
that vanish, and a stop under load. Starts the server itself, on a free port, and prints Markdown.

    python3 bench/serve.py --gen target/release/gen --model imagenet56-64 [--only throughput,equality,overload,vanish,stop]

`--seconds` is the time of each measurement; `--slots` and other options of the server follow `--`.
"""

import argparse
import asyncio
import base64
import json
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCENARIOS = ["throughput", "equality", "overload", "vanish", "stop"]


class Server:
    """A running `gen serve`."""

    def __init__(self, args, *options):
        command = [args.gen, "serve", "--port", "0", "--model", args.model, *args.options, *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        line = self.process.stdout.readline()
        self.port = int(re.search(r":(\d+)/", line).group(1))
        while asyncio.run(request(self.port, "GET", "/readyz"))[0] != 200:
            time.sleep(0.1)

    def memory(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) / 1024

    def metrics(self):
        text = asyncio.run(request(self.port, "GET", "/metrics"))[1].decode()
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line[:1] not in ("#", "")}

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.stop()


async def open_request(port, method, path, body=None):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    writer.write((head + f"Content-Length: {len(data)}\r\n\r\n").encode() + data)
    await writer.drain()
    return reader, writer


async def request(port, method, path, body=None):
    """Status and body of one request."""
    reader, writer = await open_request(port, method, path, body)
    answer = await reader.read()
    writer.close()
    head, _, rest = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head.lower():
        parts = []
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            n = int(size, 16)
            parts.append(rest[:n])
            rest = rest[n + 2 :]
        rest = b"".join(parts)
    return int(head.split(b" ", 2)[1] if head else 0), rest


def body(classes, rng, **more):
    return {"class": rng.choice(classes), "seed": rng.randrange(1 << 31), **more}


def classes_of(port, model):
    answer = json.loads(asyncio.run(request(port, "GET", f"/v1/models/{model}"))[1])
    return [entry["index"] for entry in answer["classes"]]


async def clients(port, n, seconds, make):
    """`n` clients that ask again as soon as they are answered: latencies, and seconds in all."""
    latencies, start = [], time.monotonic()

    async def client(i):
        rng = random.Random(i)
        while time.monotonic() - start < seconds:
            began = time.monotonic()
            status, _ = await request(port, "POST", "/v1/images/generations", make(rng))
            assert status == 200, status
            latencies.append(time.monotonic() - began)

    await asyncio.gather(*(client(i) for i in range(n)))
    return latencies, time.monotonic() - start


async def first_partial(port, make):
    began = time.monotonic()
    reader, writer = await open_request(port, "POST", "/v1/images/generations", make)
    await reader.readuntil(b"image_generation.partial_image")
    elapsed = time.monotonic() - began
    writer.close()
    return elapsed


def sample_rate(args, batch):
    """Images a second of `gen sample` in batches of this size, by two runs, so that the start cancels."""
    times = []
    for images in [batch, 9 * batch]:
        with tempfile.TemporaryDirectory() as folder:
            command = [args.gen, "sample", "--model", args.model, "--num-images", str(images), "--batch-size", str(batch),
                       "--npz", f"{folder}/x.npz"]
            began = time.monotonic()
            subprocess.run(command, check=True, capture_output=True)
            times.append(time.monotonic() - began)
    return 8 * batch / (times[1] - times[0])


def throughput(args):
    print("| clients | images/s | `gen sample`, same batch | share | p50, s | p95, s | p99, s |\n| --- | --- | --- | --- | --- | --- | --- |")
    with Server(args) as server:
        classes = classes_of(server.port, args.model)
        for n in [1, 4, 16, 64]:
            latencies, seconds = asyncio.run(clients(server.port, n, args.seconds, lambda rng: body(classes, rng)))
            rate, alone = len(latencies) / seconds, sample_rate(args, n)
            q = statistics.quantiles(latencies, n=100)
            print(f"| {n} | {rate:.1f} | {alone:.1f} | {rate / alone:.2f} | {q[49]:.3f} | {q[94]:.3f} | {q[98]:.3f} |", flush=True)
        streamed = {"stream": True, "partial_images": 2}
        firsts = [asyncio.run(first_partial(server.port, body(classes, random.Random(i), **streamed))) for i in range(10)]
        print(f"\ntime to the first partial image, one client: {statistics.median(firsts):.3f} s (median of 10)")


def equality(args):
    """Requests of random arrival, class and settings against the files of `gen sample`."""
    rng = random.Random(1)

    async def ask(port, wish, delay):
        await asyncio.sleep(delay)
        status, answer = await request(port, "POST", "/v1/images/generations", wish)
        assert status == 200, answer
        return [base64.b64decode(image["b64_json"]) for image in json.loads(answer)["data"]]

    async def all_of(port, wishes):
        return await asyncio.gather(*(ask(port, wish, rng.uniform(0, 8)) for wish in wishes))

    with Server(args) as server:
        classes = classes_of(server.port, args.model)
        wishes = []
        for _ in range(args.requests):
            wish = body(classes, rng, n=rng.choice([1, 1, 2]), guidance_scale=rng.choice([1.0, 1.5, 3.0, 4.5]))
            wish |= rng.choice([{}, {"temperature": 0.8}, {"top_k": 50}, {"top_p": 0.9}, {"min_p": 0.05, "cfg_schedule": "linear"}])
            wishes.append(wish)
        found = asyncio.run(all_of(server.port, wishes))
    equal = images = 0
    for wish, pictures in zip(wishes, found):
        names = {"class": "class", "seed": "seed", "guidance_scale": "cfg", "n": "num"}
        options = [f"--{names.get(key, key).replace('_', '-')}={value}" for key, value in wish.items()]
        with tempfile.TemporaryDirectory() as folder:
            command = [args.gen, "sample", "--model", args.model, "--output", folder, *options]
            subprocess.run(command, check=True, capture_output=True)
            files = sorted(path for path in Path(folder).glob("*.png") if path.stem.isdigit())
            images += len(files)
            equal += sum(path.read_bytes() == picture for path, picture in zip(files, pictures, strict=True))
    print(f"{args.requests} requests, {images} images: {equal} have the bytes of `gen sample`")
    return equal == images


def overload(args):
    """Ten times as many clients as the server has room for, which ask again at once when they are refused."""
    with Server(args, "--queue", "32", "--max-connections", "2000") as server:
        classes = classes_of(server.port, args.model)
        before, counts, latencies = server.memory(), {}, []

        async def client(i, end):
            rng = random.Random(i)
            while time.monotonic() < end:
                began = time.monotonic()
                status, _ = await request(server.port, "POST", "/v1/images/generations", body(classes, rng))
                counts[status] = counts.get(status, 0) + 1
                if status == 200:
                    latencies.append(time.monotonic() - began)
                else:
                    await asyncio.sleep(0.2)

        async def everyone():
            end = time.monotonic() + args.seconds * 3
            await asyncio.gather(*(client(i, end) for i in range(640)))

        asyncio.run(everyone())
        q = statistics.quantiles(latencies, n=100)
        print(f"640 clients for {args.seconds * 3} s, queue 32: answers {dict(sorted(counts.items()))}; accepted ones p50 {q[49]:.2f} s, "
              f"p99 {q[98]:.2f} s; memory {before:.0f} MiB before, {server.memory():.0f} MiB after")
        return set(counts) == {200, 429}


def vanish(args):
    """A thousand clients that leave at random moments."""
    with Server(args, "--queue", "2000", "--max-connections", "3000") as server:
        classes = classes_of(server.port, args.model)
        before = server.memory()

        async def client(i):
            rng = random.Random(i)
            await asyncio.sleep(rng.uniform(0, 10))
            _, writer = await open_request(
                server.port, "POST", "/v1/images/generations", body(classes, rng, n=4, stream=True, partial_images=1))
            await asyncio.sleep(rng.uniform(0, 2))
            writer.close()

        async def everyone():
            await asyncio.gather(*(client(i) for i in range(1000)))

        asyncio.run(everyone())
        time.sleep(3)
        after = {name: value for name, value in server.metrics().items() if re.match("gen_(connections|model_(active|queued)_images)", name)}
        status, _ = asyncio.run(request(server.port, "POST", "/v1/images/generations", body(classes, random.Random(0))))
        print(f"1,000 clients that left: {after}; the next request: {status}; memory {before:.0f} MiB before, {server.memory():.0f} MiB after")
        return status == 200


def stop(args):
    """SIGTERM while images are drawn: each client gets its image or is told."""
    with Server(args) as server:
        classes = classes_of(server.port, args.model)

        async def everyone():
            rng = random.Random(2)
            asked = [asyncio.create_task(request(server.port, "POST", "/v1/images/generations", body(classes, rng, n=2))) for _ in range(40)]
            await asyncio.sleep(0.3)
            server.process.send_signal(signal.SIGTERM)
            return [status for status, _ in await asyncio.gather(*asked)]

        statuses = asyncio.run(everyone())
        code = server.process.wait()
        counts = {status: statuses.count(status) for status in sorted(set(statuses))}
        print(f"SIGTERM with 40 requests under way: answers {counts}, exit code {code}")
        return code == 0 and set(counts) <= {200, 503}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gen", default="target/release/gen")
    parser.add_argument("--model", default="imagenet56-64")
    parser.add_argument("--only", default=",".join(SCENARIOS))
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("options", nargs="*", help="options of the server, after --")
    args = parser.parse_args()
    held = True
    for name in args.only.split(","):
        print(f"\n### {name}\n", flush=True)
        held &= globals()[name](args) is not False
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
