"""Ordinary change detectors on the scores that the power study wrote, at an equal attained mean time between false alarms.

    python benches/shift/peers.py SCORES [--channels base|all] [--mean-time 5000]

Needs NumPy. KS, CvM, MMD and LSDD compare the last 20 frames with the reference; their statistics are written out here
from their definitions. CUSUM sums standardised scores, rank-CUSUM normal scores of ranks in the reference. Every detector
gets the same channels. Thresholds are set with hindsight on healthy test frames, so that each attains the mean time
exactly: no such detector could do that in the field, and none is held to a promise.
"""

import argparse
from pathlib import Path
from statistics import NormalDist

import numpy as np

WINDOW, STREAMS, CAP = 20, 40, 300
SEVERITIES = (1, 3, 5)


def standardised(reference, frames):
    mean, deviation = reference.mean(0), reference.std(0) + 1e-9
    return (frames - mean) / deviation


def ranks(reference, frames):
    """Position of each score among the reference's, in (0, 1)."""
    columns = [np.searchsorted(np.sort(reference[:, c]), frames[:, c], "right") for c in range(reference.shape[1])]
    return (np.stack(columns, 1) + 0.5) / (len(reference) + 1)


def per_window(values):
    """streams × frames × channels → streams × windows × channels × WINDOW."""
    return np.lib.stride_tricks.sliding_window_view(values, WINDOW, axis=1)


def ks(u):
    ordered = np.sort(per_window(u), axis=-1)
    steps = np.arange(1, WINDOW + 1) / WINDOW
    return np.maximum(steps - ordered, ordered - steps + 1 / WINDOW).max(-1).max(-1)


def cvm(u):
    ordered = np.sort(per_window(u), axis=-1)
    return ((ordered - (np.arange(WINDOW) + 0.5) / WINDOW) ** 2).sum(-1).max(-1)


def moving_mean(values):
    total = np.cumsum(np.pad(values, [(0, 0), (1, 0)] + [(0, 0)] * (values.ndim - 2)), axis=1)
    return (total[:, WINDOW:] - total[:, :-WINDOW]) / WINDOW


def kernel(a, b, width):
    square = (a * a).sum(-1)[:, None] + (b * b).sum(-1)[None] - 2 * a @ b.T
    return np.exp(-np.maximum(square, 0) / (2 * width))


def median_width(reference):
    sample = reference[:300]
    square = ((sample[:, None] - sample[None]) ** 2).sum(-1)
    return np.median(square[np.triu_indices(len(sample), 1)])


def mmd(reference):
    width = median_width(reference)

    def statistic(x):
        streams, frames, channels = x.shape
        to_reference = kernel(x.reshape(-1, channels), reference, width).mean(1).reshape(streams, frames)
        pairs = np.zeros((streams, frames - WINDOW + 1))
        for lag in range(1, WINDOW):
            near = np.exp(-((x[:, lag:] - x[:, :-lag]) ** 2).sum(-1) / (2 * width))
            total = np.cumsum(np.pad(near, [(0, 0), (1, 0)]), axis=1)
            span = WINDOW - lag
            pairs += (total[:, span:] - total[:, :-span])[:, : pairs.shape[1]]
        return 2 * pairs / (WINDOW * (WINDOW - 1)) - 2 * moving_mean(to_reference)

    return statistic


def lsdd(reference):
    """Least-squares density difference with 100 Gaussian centres (Sugiyama et al., 2013)."""
    width = median_width(reference)
    centres = reference[np.random.default_rng(0).permutation(len(reference))[:100]]
    gram = kernel(centres, centres, 2 * width)
    solve = np.linalg.inv(gram + 1e-2 * np.eye(len(centres)))
    form = 2 * solve - solve @ gram @ solve
    expected = kernel(reference, centres, width).mean(0)

    def statistic(x):
        features = kernel(x.reshape(-1, x.shape[-1]), centres, width).reshape(*x.shape[:2], -1)
        off = moving_mean(features) - expected
        return np.einsum("stc,cd,std->st", off, form, off)

    return statistic


def cusum(kappa):
    def statistic(z):
        high = low = np.zeros(z[:, 0].shape)
        series = []
        for t in range(z.shape[1]):
            high, low = np.maximum(0, high + z[:, t] - kappa), np.maximum(0, low - z[:, t] - kappa)
            series.append(np.maximum(high, low).max(-1))
        return np.stack(series, 1)

    return statistic


def first_passage(series, threshold):
    over = series >= threshold
    return np.where(over.any(1), over.argmax(1) + 1, series.shape[1] + 1)


def threshold_for(series, mean_time):
    """The level at which exposure over alarms is the mean time."""
    low, high = series.min(), series.max() + 1e-9
    for _ in range(60):
        middle = (low + high) / 2
        passed = first_passage(series, middle)
        rang = (passed <= series.shape[1]).sum()
        exposure = np.minimum(passed, series.shape[1]).sum()
        low, high = (middle, high) if exposure < mean_time * rang else (low, middle)
    return high


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("scores", type=Path)
    options.add_argument("--channels", choices=["base", "all", "confidence"], default="base")
    options.add_argument("--mean-time", type=float, default=5000)
    options = options.parse_args()

    names = (options.scores / "channels.txt").read_text().split()
    saliency = ("cam_", "masked_")
    learned = ("toward_", "projection_")
    left_out = saliency if options.channels == "all" else saliency + learned
    kept = [i for i, n in enumerate(names) if not n.startswith(left_out)]
    kept = [names.index("confidence")] if options.channels == "confidence" else kept
    load = lambda path: np.load(path)[:, kept].astype(np.float64)
    reference = load(options.scores / "reference.npy")
    cells = {tuple(p.stem.rsplit(".", 1)): load(p) for p in sorted(options.scores.glob("*.*.npy"))}
    healthy = cells.pop(("healthy", "0"))

    rng = np.random.default_rng(1)
    draw = lambda frames, count, length: frames[rng.integers(0, len(frames), (count, length))]
    plain = lambda x: standardised(reference, x)
    normal = np.vectorize(NormalDist().inv_cdf)
    uniform = lambda x: ranks(reference, x)
    windows = {"KS": (uniform, ks), "CvM": (uniform, cvm)}
    windows |= {"MMD": (plain, mmd(plain(reference))), "LSDD": (plain, lsdd(plain(reference)))}
    sums = {f"CUSUM {k}": (plain, cusum(k)) for k in (0.25, 0.5)}
    sums |= {f"rank-CUSUM {k}": (lambda x: normal(uniform(x)), cusum(k)) for k in (0.25, 0.5)}

    print(f"{len(kept)} channels, mean time {options.mean_time:.0f}; geometric mean of medians over the corruptions\n")
    print("| detector | severity 1 | 3 | 5 | other classes |\n|---|---|---|---|---|")
    for name, (prepare, statistic) in (windows | sums).items():
        ready = prepare(healthy)
        series = np.concatenate([statistic(draw(ready, 20, 2000)) for _ in range(4)])
        threshold = threshold_for(series, options.mean_time)
        fill = WINDOW - 1 if name in windows else 0
        medians = {}
        for (cell, severity), frames in cells.items():
            stream = np.concatenate([draw(ready, STREAMS, fill), draw(prepare(frames), STREAMS, CAP)], axis=1)
            medians[cell, severity] = np.median(np.minimum(first_passage(statistic(stream), threshold), CAP))
        at = lambda s: [m for (c, severity), m in medians.items() if severity == str(s) and c != "dark"]
        row = [f"{np.exp(np.mean(np.log(at(s)))):.1f}" for s in SEVERITIES]
        other = medians.get(("other_classes", "0"), float("nan"))
        print(f"| {name} | {' | '.join(row)} | {other:.0f} |", flush=True)


if __name__ == "__main__":
    main()
