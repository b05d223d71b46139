"""Latency of one picture on one thread, our engines beside other runtimes, all taking turns in one run.

    cargo bench --workspace --bench engine --no-run             # prints the path of ENGINE
    ENGINE --write FOLDER && python benches/peers/make.py FOLDER     # the same networks in every runtime's own form
    python benches/peers/edge.py ENGINE FOLDER [--rounds 5] [--seconds 1] [--json FILE] [NETWORK/SIDE ...]

Contenders, where their packages and files are at hand: LiteRT with XNNPACK, ONNX Runtime, OpenVINO, ncnn (float, by pnnx),
stock tract, ours; in float and in int8. Every contender is a process of its own that holds its network and waits; in each
round they are asked one after another, the order rotated. A round's figure is the median of its runs, a contender's figure
the median of its rounds; the least run of all stands beside it, for on a busy machine other work can only add to a time.
Ratios are a peer's least over ours of the same form: above 1 we are faster.
`pip install onnxruntime openvino ai-edge-litert ncnn pnnx`; what is missing is said and left out.
"""

import argparse
import json
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

NETWORKS = ["resnet20/32", "resnet18/32", "mobilenetv2/32", "mobilenetv2/224"]


def onnx_runtime(path):
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    value = session.get_inputs()[0]
    shape = [d if isinstance(d, int) else 1 for d in value.shape]
    feed = {value.name: np.random.default_rng(1).uniform(-2, 2, shape).astype(np.float32)}
    return lambda: session.run(None, feed)


def openvino(path):
    import numpy as np
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape([1, *[d.get_length() for d in model.inputs[0].partial_shape[1:]]])
    hints = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(model, "CPU", hints).create_infer_request()
    picture = np.random.default_rng(1).uniform(-2, 2, list(model.inputs[0].shape)).astype(np.float32)
    return lambda: request.infer([picture], share_inputs=True, share_outputs=True)


def litert(path):
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=1)
    interpreter.allocate_tensors()
    place = interpreter.get_input_details()[0]
    # Its int8 form takes int8 pictures: the rounding of the input, which ours does, is not in its time.
    reach = 2 if place["dtype"] == np.float32 else 127
    picture = np.random.default_rng(1).uniform(-reach, reach, place["shape"]).astype(place["dtype"])
    interpreter.set_tensor(place["index"], picture)
    return interpreter.invoke


def ncnn(path):
    import ncnn as runtime
    import numpy as np
    import pnnx

    folder = pathlib.Path(tempfile.mkdtemp())
    copy = folder / "network.onnx"
    copy.write_bytes(pathlib.Path(path).read_bytes())
    side = int(path.rsplit("-", 1)[1].split(".")[0])
    subprocess.run([pnnx.EXEC_PATH, str(copy), f"inputshape=[1,3,{side},{side}]"], cwd=folder, check=True, capture_output=True)
    net = runtime.Net()
    net.opt.num_threads = 1
    net.load_param(str(folder / "network.ncnn.param"))
    net.load_model(str(folder / "network.ncnn.bin"))
    picture = runtime.Mat(np.random.default_rng(1).uniform(-2, 2, (3, side, side)).astype(np.float32))

    def run():
        with net.create_extractor() as extractor:
            extractor.input("in0", picture)
            extractor.extract("out0")

    return run


# Contender, form: how it is made and the ending of its file.
PEERS = {
    ("LiteRT", "float"): (litert, ".tflite"),
    ("LiteRT", "int8"): (litert, ".int8.tflite"),
    ("ONNX Runtime", "float"): (onnx_runtime, ".float.onnx"),
    ("ONNX Runtime", "int8"): (onnx_runtime, ".qdq.onnx"),
    ("OpenVINO", "float"): (openvino, ".float.onnx"),
    ("OpenVINO", "int8"): (openvino, ".qdq.onnx"),
    ("ncnn", "float"): (ncnn, ".float.onnx"),
}
# Ours answer on their own; `tract` is the float file on stock tract.
OURS = {("ours", "int8"): "int8", ("ours", "float"): "float", ("tract", "float"): "tract"}


def work(name, form, path):
    """A peer's process: for every line with a number of seconds, least and median microseconds."""
    run = PEERS[name, form][0](path)
    for line in sys.stdin:
        times, end = [], time.perf_counter() + float(line)
        for _ in range(3):
            run()
        while not times or time.perf_counter() < end:
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        print(1e6 * min(times), 1e6 * statistics.median(times), flush=True)


class Contender:
    """A process that times its own network whenever it is asked."""

    def __init__(self, command, ask):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.ask, self.rounds = ask, []

    def turn(self, seconds):
        """Whether it answered; a warm-up round is asked for but not kept by the caller."""
        try:
            self.process.stdin.write(self.ask.format(seconds) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline().split()
        except BrokenPipeError:
            answer = []
        if answer:
            self.rounds.append([float(word) for word in answer])
        return bool(answer)

    def close(self):
        """Ends it; what it complained of, line by line."""
        try:
            return self.process.communicate()[1].strip().splitlines()
        except BrokenPipeError:
            return self.process.stderr.read().strip().splitlines()


def measure(network, engine, folder, rounds, seconds):
    contenders = {key: Contender([engine, "--turns"], f"{network} {form} {{}}") for key, form in OURS.items()}
    for key, (_, ending) in PEERS.items():
        path = folder / (network.replace("/", "-") + ending)
        if path.exists():
            contenders[key] = Contender([sys.executable, __file__, "--worker", *key, str(path)], "{}")
    for key in list(contenders):
        if not contenders[key].turn(0.2):
            reason = contenders.pop(key).close()[-1:]
            print(f"{network}: {' '.join(key)} left out: {' '.join(reason) or 'it ended'}", file=sys.stderr)
    order = list(contenders)
    for contender in contenders.values():
        contender.rounds.clear()
    for _ in range(rounds):
        for key in order:
            contenders[key].turn(seconds)
        order = order[1:] + order[:1]
    rows = []
    for (name, form), contender in contenders.items():
        contender.close()
        medians = [median for _, median in contender.rounds]
        least = min(least for least, _ in contender.rounds)
        spread = (max(medians) - min(medians)) / statistics.median(medians)
        rows.append({"network": network, "form": form, "contender": name, "least_us": least,
                     "median_us": statistics.median(medians), "spread": spread})
    ours = {row["form"]: row["least_us"] for row in rows if row["contender"] == "ours"}
    for row in rows:
        row["ours_against_it"] = row["least_us"] / ours[row["form"]]
    return sorted(rows, key=lambda row: (row["form"], row["least_us"]))


def main():
    if sys.argv[1:2] == ["--worker"]:
        return work(*sys.argv[2:5])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    rows = []
    for network in arguments.networks:
        part = measure(network, arguments.engine, arguments.folder, arguments.rounds, arguments.seconds)
        rows += part
        print(f"\n{network:20} {'least':>10} {'median':>10}  spread  ours against it")
        for row in part:
            print(f"  {row['contender']:12} {row['form']:6} {row['least_us']:9.1f} {row['median_us']:9.1f} µs "
                  f"{row['spread']:6.0%}  {row['ours_against_it']:5.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": platform.processor() or platform.machine(), "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
