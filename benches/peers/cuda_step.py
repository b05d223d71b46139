"""PyTorch's side of `train/benches/cuda.rs`: pictures a second of SupCon's and ExCon's step, one line of JSON per case.

    python benches/peers/cuda_step.py [NETWORK RECIPE BATCH]...

bf16 autocast, channels_last, torch.compile, fused SGD. The views are made once and stay on the card, so that nothing of
PyTorch's own data loading is in the time, in its favour: ours draws and renders views in every step. A picture counts
once, whatever the number of its views. Needs a CUDA build of PyTorch and nothing else.
"""

import json
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

STEPS, WARM_UP, CLASSES, TEMPERATURE, BASE = 60, 15, 100, 0.1, 0.07
CASES = [
    ("resnet18", "supcon", 256),
    ("resnet18", "excon", 256),
    ("resnet18", "cross-entropy", 256),
    ("resnet18", "supcon", 1024),
    ("resnet18", "excon", 1024),
    ("resnet50", "supcon", 256),
    ("resnet50", "excon", 256),
    ("resnet50", "supcon", 1024),
]


def conv_norm(inputs, outputs, kernel, stride):
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Block(nn.Module):
    def __init__(self, inputs, width, stride, bottleneck):
        super().__init__()
        outputs = 4 * width if bottleneck else width
        layers = [(width, 1, 1), (width, 3, stride), (outputs, 1, 1)] if bottleneck else [(width, 3, stride), (width, 3, 1)]
        path, channels = [], inputs
        for i, (width, kernel, stride_here) in enumerate(layers):
            path.append(conv_norm(channels, width, kernel, stride_here))
            if i + 1 < len(layers):
                path.append(nn.ReLU(inplace=True))
            channels = width
        self.path = nn.Sequential(*path)
        same = stride == 1 and inputs == outputs
        self.short = nn.Identity() if same else conv_norm(inputs, outputs, 1, stride)

    def forward(self, x):
        return F.relu(self.path(x) + self.short(x))


class Network(nn.Module):
    def __init__(self, name):
        super().__init__()
        counts, bottleneck = {"resnet18": ([2, 2, 2, 2], False), "resnet50": ([3, 4, 6, 3], True)}[name]
        blocks, channels = [], 64
        for stage, (width, count) in enumerate(zip([64, 128, 256, 512], counts)):
            for i in range(count):
                blocks.append(Block(channels, width, 2 if stage > 0 and i == 0 else 1, bottleneck))
                channels = 4 * width if bottleneck else width
        self.encoder = nn.Sequential(conv_norm(3, 64, 3, 1), nn.ReLU(inplace=True), *blocks)
        self.fc = nn.Linear(channels, CLASSES)
        self.head = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(inplace=True), nn.Linear(channels, 128))

    def forward(self, x):
        features = self.encoder(x)
        pooled = features.mean((2, 3))
        return features, self.fc(pooled), self.head(pooled)


def supcon(projections, labels):
    z = F.normalize(projections.float())
    s = z @ z.T / TEMPERATURE
    others = ~torch.eye(len(z), dtype=torch.bool, device=z.device)
    positive = (labels[:, None] == labels[None]) & others
    log_sum = torch.logsumexp(s.masked_fill(~others, -torch.inf), 1)
    terms = log_sum - (s * positive).sum(1) / positive.sum(1)
    return TEMPERATURE / BASE * terms.mean()


def masked(features, weight, labels, clean):
    cam = torch.einsum("nchw,nc->nhw", features.float(), weight[labels])
    cam = F.interpolate(cam[:, None], clean.shape[2:], mode="bilinear", align_corners=False)
    low = cam.amin((2, 3), keepdim=True)
    cam = (cam - low) / ((cam - low).amax((2, 3), keepdim=True) + 1e-8)
    return clean * (cam > 0.5)


def run(name, recipe, batch):
    torch.manual_seed(1)
    network = Network(name).cuda().to(memory_format=torch.channels_last)
    sgd = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9, weight_decay=1e-4, fused=True)
    forward = torch.compile(network)
    supcon_loss = torch.compile(supcon)
    mask = torch.compile(masked)
    view = lambda: torch.randn(batch, 3, 32, 32, device="cuda").to(memory_format=torch.channels_last)
    clean, first, second = view(), view(), view()
    labels = torch.randint(CLASSES, (batch,), device="cuda")
    both = labels.repeat(2)

    def step():
        with torch.autocast("cuda", torch.bfloat16):
            if recipe == "cross-entropy":
                loss = F.cross_entropy(forward(first)[1].float(), labels)
            else:
                view1 = second
                if recipe == "excon":
                    network.eval()
                    with torch.no_grad():
                        features, _, _ = forward(clean)
                        z = mask(features, network.fc.weight, labels, clean)
                        passes = forward(z)[1].argmax(1) == labels
                        view1 = torch.where(passes[:, None, None, None], z, second)
                    network.train()
                rows = torch.cat([view1, first]).contiguous(memory_format=torch.channels_last)
                _, logits, projections = forward(rows)
                loss = supcon_loss(projections, both) + F.cross_entropy(logits.float(), both)
        sgd.zero_grad(set_to_none=True)
        loss.backward()
        sgd.step()

    for _ in range(WARM_UP):
        step()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(STEPS):
        step()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    print(json.dumps({
        "schema": "excon.bench.cuda/1", "who": f"torch {torch.__version__}", "network": name, "recipe": recipe,
        "joint": True, "batch": batch, "precision": "bf16", "steps": STEPS,
        "pictures_per_second": round(batch * STEPS / seconds, 1), "milliseconds_per_step": round(seconds * 1e3 / STEPS, 3),
        "device": torch.cuda.get_device_name(),
    }), flush=True)


if __name__ == "__main__":
    given = sys.argv[1:]
    cases = [(given[i], given[i + 1], int(given[i + 2])) for i in range(0, len(given) - 2, 3)] or CASES
    for case in cases:
        run(*case)
