"""The networks of `edge.py` in the forms that other runtimes run best, made from our own float files.

    cargo bench --workspace --bench engine -- --write FOLDER
    python benches/peers/make.py FOLDER

Beside each `NAME.float.onnx` it writes `NAME.qdq.onnx` (ONNX Runtime's static quantization: u8 activations, s8 weights per
channel), `NAME.tflite` and `NAME.int8.tflite` (LiteRT's converter and quantizer, channels last). All
have the same weights and two outputs, logits and the last feature map. What a missing package makes impossible is said
and left out: `pip install onnx onnxruntime numpy` for the first, `torch litert-torch` besides for the others (8 GB).
"""

import pathlib
import sys

import numpy as np
import onnx
from onnx import numpy_helper

CALIBRATION = 8


def calibration(shape):
    random = np.random.default_rng(1)
    return [random.uniform(-2, 2, shape).astype(np.float32) for _ in range(CALIBRATION)]


def input_of(model):
    value = model.graph.input[0]
    return value.name, [d.dim_value or 1 for d in value.type.tensor_type.shape.dim]


def ort_int8(source, target):
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Pictures(CalibrationDataReader):
        def __init__(self):
            name, shape = input_of(onnx.load(source))
            self.rows = iter([{name: picture} for picture in calibration(shape)])

        def get_next(self):
            return next(self.rows, None)

    quantize_static(
        source, target, Pictures(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )


def torch_module(model):
    """The network of one of our files, node by node; nothing but what our exporter writes is known."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleDict()
            weights = {w.name: torch.tensor(numpy_helper.to_array(w)) for w in model.graph.initializer}
            self.steps = []
            for at, node in enumerate(model.graph.node):
                attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
                values = [name for name in node.input if name not in weights]
                constants = [weights[name] for name in node.input if name in weights]
                key = f"n{at}"
                if node.op_type == "Conv":
                    weight, groups = constants[0], attributes.get("group", 1)
                    out, per_group, *kernel = weight.shape
                    pads, strides = attributes.get("pads", [0, 0, 0, 0]), attributes.get("strides", [1, 1])
                    layer = nn.Conv2d(per_group * groups, out, kernel, strides, pads[:2], groups=groups)
                    layer.weight.data, layer.bias.data = weight, constants[1]
                    self.layers[key] = layer
                elif node.op_type == "Gemm":
                    weight = constants[0] if attributes.get("transB") else constants[0].T
                    layer = nn.Linear(weight.shape[1], weight.shape[0])
                    layer.weight.data, layer.bias.data = weight.contiguous(), constants[1]
                    self.layers[key] = layer
                elif node.op_type not in ("Relu", "Clip", "Add", "GlobalAveragePool", "ReduceMean", "Flatten", "Identity"):
                    raise SystemExit(f"{node.op_type} is not known here")
                self.steps.append((key, node.op_type, values, list(node.output)))

        def forward(self, x):
            held = {model.graph.input[0].name: x}
            for key, kind, values, outputs in self.steps:
                read = [held[name] for name in values]
                if kind in ("Conv", "Gemm"):
                    y = self.layers[key](read[0])
                elif kind == "Relu":
                    y = F.relu(read[0])
                elif kind == "Clip":
                    y = F.relu6(read[0])
                elif kind == "Add":
                    y = read[0] + read[1]
                elif kind == "Flatten":
                    y = read[0].flatten(1)
                elif kind == "Identity":
                    y = read[0]
                else:
                    y = read[0].mean((2, 3), keepdim=kind == "GlobalAveragePool")
                held[outputs[0]] = y
            return tuple(held[output.name] for output in model.graph.output)

    return Network().eval()


def litert(source, float_target, int8_target):
    import litert_torch
    import torch
    from ai_edge_quantizer import quantizer, recipe

    model = onnx.load(source)
    _, [n, c, h, w] = input_of(model)
    module = litert_torch.to_channel_last_io(torch_module(model), args=[0])
    litert_torch.convert(module, (torch.zeros(n, h, w, c),)).export(str(float_target))
    tool = quantizer.Quantizer(str(float_target))
    tool.load_quantization_recipe(recipe.static_wi8_ai8())
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=str(float_target)).get_signature_list()
    signature, names = next(iter(runner.items()))
    rows = [{names["inputs"][0]: p} for p in calibration((n, h, w, c))]
    result = tool.quantize(tool.calibrate({signature: rows}))
    result.export_model(str(int8_target), overwrite=True)


def attempt(what, make, *paths):
    try:
        make(*paths)
        print(f"{what}: {paths[-1]}", file=sys.stderr)
    except ImportError as missing:
        print(f"{what} left out: {missing}", file=sys.stderr)


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    for source in sorted(pathlib.Path(sys.argv[1]).glob("*.float.onnx")):
        stem = source.with_name(source.name.removesuffix(".float.onnx"))
        beside = lambda ending: stem.with_name(stem.name + ending)
        attempt("ONNX Runtime, int8", ort_int8, source, beside(".qdq.onnx"))
        attempt("LiteRT", litert, source, beside(".tflite"), beside(".int8.tflite"))


if __name__ == "__main__":
    main()
