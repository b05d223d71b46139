"""Training step on a CPU, ours against PyTorch, the two taking turns in one run.

    cargo bench -p excon-train --bench step --no-run      # prints the path of STEP
    python benches/peers/cpu_step.py STEP [--rounds 3] [--json FILE]

The same networks, batches and step on both sides: forward with batch statistics, projection head, mean of squares,
backward, SGD with momentum and weight decay, f32. PyTorch runs eager in both layouts, NCHW and channels_last. A figure is
the least wall time of an image over all rounds, for other work on the machine can only add to it; the ratio is PyTorch's
better layout over ours. Needs PyTorch (any build) and nothing else.
"""

import argparse
import json
import platform
import subprocess
import time

import torch
from cuda_step import Block
from torch import nn

CASES = [("resnet20", 128, [16, 32, 64], 3), ("resnet18", 64, [64, 128, 256, 512], 2)]
THREADS = [1, 2]


class Network(nn.Module):
    """CIFAR ResNet with a stem of stride 1 and the projection head d - d - 128."""

    def __init__(self, widths, count):
        super().__init__()
        layers = [nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)]
        channels = widths[0]
        for stage, width in enumerate(widths):
            for i in range(count):
                layers.append(Block(channels, width, 2 if stage > 0 and i == 0 else 1, False))
                channels = width
        self.encoder = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(inplace=True), nn.Linear(channels, 128))

    def forward(self, x):
        return self.head(self.encoder(x))


def torch_step(widths, count, batch, threads, layout):
    """Least milliseconds of an image."""
    torch.set_num_threads(threads)
    network = Network(widths, count).to(memory_format=layout).train()
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9, weight_decay=1e-4)
    x = torch.rand(batch, 3, 32, 32).to(memory_format=layout)
    least, begin, runs = float("inf"), time.perf_counter(), 0
    while runs < 5 or time.perf_counter() - begin < 4:
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        network(x).square().mean().backward()
        optimizer.step()
        least = min(least, time.perf_counter() - start)
        runs += 1
    return 1e3 * least / batch


def our_steps(binary, name):
    """Milliseconds of an image by number of threads, and the instruction set."""
    said = subprocess.run([binary, name], check=True, capture_output=True, text=True).stdout.splitlines()
    lines = [line.split() for line in said[2:]]
    return {int(line[2]): float(line[6]) for line in lines}, said[0].split()[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", help="binary of our bench")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="file to write")
    options = parser.parse_args()
    layouts = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
    rows = []
    for name, batch, widths, count in CASES:
        ours, theirs, isa = {}, {}, ""
        for _ in range(options.rounds):
            steps, isa = our_steps(options.step, name)
            for threads, value in steps.items():
                ours.setdefault(threads, []).append(value)
            for threads in THREADS:
                for layout, form in layouts.items():
                    value = torch_step(widths, count, batch, threads, form)
                    theirs.setdefault((threads, layout), []).append(value)
        for threads in THREADS:
            row = {"network": name, "batch": batch, "threads": threads, "instructions": isa, "ours_ms": ours[threads]}
            row |= {f"torch_{layout}_ms": theirs[threads, layout] for layout in layouts}
            best = min(min(theirs[threads, layout]) for layout in layouts)
            row["ratio"] = best / min(ours[threads])
            rows.append(row)
            figures = "  ".join(f"{layout} {min(theirs[threads, layout]):.3f}" for layout in layouts)
            print(f"{name} {batch} {threads} threads: ours {min(ours[threads]):.3f}  {figures}  ratio {row['ratio']:.2f}")
    about = {"torch": torch.__version__, "machine": platform.processor() or platform.machine(), "rows": rows}
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"schema": "excon.cpu-step/1", **about}, file, indent=1)


if __name__ == "__main__":
    main()
