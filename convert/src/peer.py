"""Runs one ONNX file in ONNX Runtime or OpenVINO for the program that started this one: one thread, on the CPU, one picture
at a time, as `peer.rs` asks through standard input. All numbers are little-endian.

First request: u32 length and JSON {"engine", "input": [C, H, W], "outputs": [names]}, then u64 length and the file. Every
further one: u32 pictures, then n x C x H x W f32; no request left is the end. Answers are a status byte, u64 length, bytes:
0 to the first request with name and version of the engine; 0 for each output in turn with its f32 of all pictures; 1 with
what went wrong; 2 with the name of the package that is missing.
"""

import json
import os
import platform
import struct
import sys

# Neither a module that lies where the command was started, nor what a library prints, may come between.
sys.path[:] = [place for place in sys.path if place]
requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)


def answer(status, content):
    answers.write(struct.pack("<BQ", status, len(content)) + content)
    answers.flush()


def number(form):
    """The next number, or nothing where requests have ended."""
    read = requests.read(struct.calcsize(form))
    return struct.unpack(form, read)[0] if read else None


def onnxruntime_session(file, shape, names):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Without this the int8 kernels of x86 processors that lack VNNI add pairs of products in 16 bits and saturate.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    run = lambda picture: session.run(names, {source.name: picture})
    return f"onnxruntime {onnxruntime.__version__}", source.shape, run


def openvino_session(file, shape, names):
    import openvino

    model = openvino.Core().read_model(file)
    dims = [d.get_length() if d.is_static else None for d in model.inputs[0].partial_shape]
    model.reshape([1, *(shape[1:] + shape[:1] if channels_last(dims) else shape)])
    # Otherwise it computes floats in 16 bits where the processor can.
    hints = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if saturates():
        # As above, but no setting makes its sums exact: int8 is computed in floats.
        hints["LP_TRANSFORMS_MODE"] = "NO"
    compiled = openvino.Core().compile_model(model, "CPU", hints)
    wanted, request = [compiled.output(name) for name in names], compiled.create_infer_request()

    def run(picture):
        values = request.infer([picture])
        return [values[output] for output in wanted]

    return f"openvino {openvino.__version__.split('-')[0]}", dims, run


def saturates():
    """Whether this is an x86 processor without VNNI."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    try:
        with open("/proc/cpuinfo") as about:
            return "vnni" not in about.read()
    except OSError:
        return False


def channels_last(dims):
    return dims[3] == 3 and dims[1] != 3


def main():
    try:
        asked = json.loads(requests.read(number("<I")))
        shape, file = asked["input"], requests.read(number("<Q"))
        import numpy

        make = {"onnxruntime": onnxruntime_session, "openvino": openvino_session}[asked["engine"]]
        name, dims, run = make(file, shape, asked["outputs"])
        answer(0, name.encode())
        while (count := number("<I")) is not None:
            values = numpy.frombuffer(requests.read(4 * count * shape[0] * shape[1] * shape[2]), "<f4")
            pictures = values.reshape(count, 1, *shape)
            if channels_last(dims):
                pictures = pictures.transpose(0, 1, 3, 4, 2)
            rows = [[value.astype("<f4").tobytes() for value in run(numpy.ascontiguousarray(p))] for p in pictures]
            for at in range(len(asked["outputs"])):
                answer(0, b"".join(row[at] for row in rows))
    except ModuleNotFoundError as missing:
        answer(2, str(missing.name).encode())
    except Exception as wrong:
        answer(1, f"{type(wrong).__name__}: {wrong}".encode())


main()
