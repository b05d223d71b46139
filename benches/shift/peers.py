"""Ordinary change detectors on the scores that the power study wrote, at an equal attained mean time between false alarms.

    pip install 'alibi-detect[torch]'
    python benches/shift/peers.py SCORES [--channels base|all|confidence] [--mean-time 5000] [--streams 40]

CvM, MMD and LSDD are alibi-detect's online detectors; its KS detector takes whole batches and is too slow to be asked
after every frame, so its distance is computed here and held against the package's on some windows. Windows have 20
frames and are full of healthy ones when the shift begins. CUSUM sums standardised scores, rank-CUSUM normal scores of
ranks in the reference. Every detector gets the same channels and the same reference. Thresholds are set with hindsight
on healthy test frames, so that each attains the mean time exactly: none could do that in the field, and none is held to
a promise. alibi-detect's licence (BSL 1.1) makes it nothing to depend on; it is used here and nowhere else.
"""

import argparse
import multiprocessing
import warnings
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from statistics import NormalDist

import numpy as np

WINDOW, CUT = 20, 300
SEVERITIES = ("1", "3", "5")
HEALTHY_STREAMS, HEALTHY_FRAMES = 50, 2000
RAMP, RAMP_STEPS, RAMP_STREAMS = 2000, 10, 10
NAMES = ["KS", "CvM", "MMD", "LSDD", "CUSUM 0.25", "CUSUM 0.5", "rank-CUSUM 0.25", "rank-CUSUM 0.5"]


def ranks(reference, frames):
    """Position of each score among the reference's, in (0, 1)."""
    columns = [np.searchsorted(np.sort(reference[:, c]), frames[:, c], "right") for c in range(reference.shape[1])]
    return (np.stack(columns, 1) + 0.5) / (len(reference) + 1)


def ks(reference):
    """Largest two-sided distance over the channels between the window's and the reference's distribution."""
    from alibi_detect.cd import KSDrift

    ordered, count = np.sort(reference, axis=0), len(reference)
    steps = np.arange(1, WINDOW + 1)[:, None] / WINDOW

    def distances(window):
        window = np.sort(window, axis=0)
        at = lambda side: np.stack([np.searchsorted(ordered[:, c], window[:, c], side) for c in range(window.shape[1])], 1)
        return np.maximum(steps - at("right") / count, at("left") / count - steps + 1 / WINDOW).max(0)

    package = KSDrift(reference, p_val=0.05)
    rng = np.random.default_rng(3)
    for _ in range(5):
        window = reference[rng.integers(0, count, WINDOW)] + 0.3 * reference.std(0) * rng.standard_normal(reference.shape[1])
        theirs = package.feature_score(package.x_ref, window)[1]
        assert np.allclose(distances(window), theirs, atol=1e-6), (distances(window), theirs)

    def statistic(stream):
        for end in range(1, len(stream) + 1):
            yield distances(stream[end - WINDOW : end]).max() if end >= WINDOW else -np.inf

    return statistic


def online(name, reference):
    """One of alibi-detect's online detectors. Its own thresholds are not used: a short run time and few bootstraps do."""
    from alibi_detect.cd import CVMDriftOnline, LSDDDriftOnline, MMDDriftOnline

    data, about = reference.astype(np.float32), {"ert": 2 if name == "CvM" else 50, "n_bootstraps": 200, "verbose": False}
    if name == "CvM":
        detector = CVMDriftOnline(data, window_sizes=[WINDOW], batch_size=4, **about)
    else:
        kind = {"MMD": MMDDriftOnline, "LSDD": LSDDDriftOnline}[name]
        detector = kind(data, window_size=WINDOW, backend="pytorch", **about)

    def statistic(stream):
        detector.reset_state()
        for frame in stream.astype(np.float32):
            score = np.asarray(detector.score(frame))
            yield -np.inf if np.isnan(score).all() else np.nanmax(score)

    return statistic


def cusum(kappa):
    def statistic(stream):
        high = low = np.zeros(stream.shape[1])
        for frame in stream:
            high, low = np.maximum(0, high + frame - kappa), np.maximum(0, low - frame - kappa)
            yield max(high.max(), low.max())

    return statistic


def detector(name, reference):
    """How frames are prepared, and the statistic of a stream of them, a value a frame."""
    plain = lambda x: (x - reference.mean(0)) / (reference.std(0) + 1e-9)
    normal = lambda x: np.vectorize(NormalDist().inv_cdf)(ranks(reference, x))
    if name == "KS":
        return plain, ks(plain(reference))
    if name in ("CvM", "MMD", "LSDD"):
        return plain, online(name, plain(reference))
    kind, kappa = name.split()
    return (normal if kind == "rank-CUSUM" else plain), cusum(float(kappa))


def threshold_for(series, mean_time):
    """The level at which exposure over alarms is the mean time."""
    def first_passage(level):
        over = series >= level
        return np.where(over.any(1), over.argmax(1) + 1, series.shape[1] + 1)

    low, high = series[np.isfinite(series)].min(), series.max() + 1e-9
    for _ in range(60):
        middle = (low + high) / 2
        passed = first_passage(middle)
        rang = (passed <= series.shape[1]).sum()
        exposure = np.minimum(passed, series.shape[1]).sum()
        low, high = (middle, high) if exposure < mean_time * rang else (low, middle)
    return high


def measure(work):
    """One detector's row: median delay per cell."""
    name, reference, healthy, cells, ramps, options = work
    warnings.filterwarnings("ignore")
    if name in ("MMD", "LSDD"):
        import torch

        torch.set_num_threads(1)
    prepare, statistic = detector(name, reference)
    rng = np.random.default_rng(1)
    ready = prepare(healthy)
    draw = lambda frames, count: frames[rng.integers(0, len(frames), count)]
    fill = WINDOW - 1 if name in ("KS", "CvM", "MMD", "LSDD") else 0

    def values(frames):
        return islice(statistic(np.concatenate([draw(ready, fill), frames])), fill, None)

    series = np.array([list(values(draw(ready, HEALTHY_FRAMES))) for _ in range(HEALTHY_STREAMS)])
    threshold = threshold_for(series, options.mean_time)
    delay = lambda frames: next((t for t, v in enumerate(values(frames), 1) if v >= threshold), len(frames))
    medians = {}
    for cell, frames in cells.items():
        seen = prepare(frames)
        medians[cell] = np.median([delay(draw(seen, CUT)) for _ in range(options.streams)])
    creeping = {}
    for ramp, way in ramps.items():
        way = [ready] + [prepare(step) for step in way]
        step = lambda t: min(t * RAMP_STEPS // RAMP, RAMP_STEPS)
        stream = lambda: np.stack([draw(way[step(t)], 1)[0] for t in range(2 * RAMP)])
        creeping[ramp] = np.median([delay(stream()) for _ in range(RAMP_STREAMS)])
    return name, medians, creeping


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("scores", type=Path)
    options.add_argument("--channels", choices=["base", "all", "confidence"], default="base")
    options.add_argument("--mean-time", type=float, default=5000)
    options.add_argument("--streams", type=int, default=40)
    options.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    options.add_argument("--jobs", type=int, default=2)
    options = options.parse_args()

    names = (options.scores / "channels.txt").read_text().split()
    saliency, learned = ("cam_", "masked_"), ("toward_", "projection_")
    left_out = saliency if options.channels == "all" else saliency + learned
    kept = [i for i, n in enumerate(names) if not n.startswith(left_out)]
    kept = [names.index("confidence")] if options.channels == "confidence" else kept
    load = lambda path: np.load(path)[:, kept].astype(np.float64)
    reference = load(options.scores / "reference.npy")
    cells = {tuple(p.stem.rsplit(".", 1)): load(p) for p in sorted(options.scores.glob("*.*.npy"))}
    healthy = cells.pop(("healthy", "0"))
    ramps = {}
    for name, severity in sorted(cells):
        if name.startswith("ramp_"):
            ramps.setdefault(name.rsplit("_", 1)[0], []).append(cells.pop((name, severity)))
    contents = sorted(cell for cell in cells if cell[1] == "0")

    about = f"{len(kept)} channels, mean time {options.mean_time:.0f}, {options.streams} streams a cell"
    print(f"{about}; geometric mean over the corruptions of the medians, cut at {CUT} frames\n")
    head = [f"severity {SEVERITIES[0]}", *SEVERITIES[1:], *(c[0] for c in contents), *(r.replace("_", " ") for r in ramps)]
    print(f"| detector | {' | '.join(head)} |\n|{'---|' * (len(head) + 1)}")
    work = [(name, reference, healthy, cells, ramps, options) for name in options.only]
    # A process of its own for each: numba's threads and torch's do not live in one that was forked.
    alone = {"mp_context": multiprocessing.get_context("spawn"), "max_tasks_per_child": 1}
    with ProcessPoolExecutor(options.jobs, **alone) as pool:
        for name, medians, creeping in pool.map(measure, work):
            at = lambda s: [m for (c, severity), m in medians.items() if severity == s and c != "dark"]
            row = [f"{np.exp(np.mean(np.log(at(s)))):.1f}" for s in SEVERITIES]
            row += [f"{medians[c]:.0f}" for c in contents] + [f"{creeping[r]:.0f}" for r in ramps]
            print(f"| {name} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
