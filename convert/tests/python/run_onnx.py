"""Checks FOLDER/model.onnx with onnx.checker and runs it in ONNX Runtime on FOLDER/input.f32 (C H W follow).

Writes FOLDER/logits.f32 and FOLDER/features.f32, little-endian, all pictures one after the other.
"""

import pathlib
import sys

import numpy
import onnx
import onnxruntime

folder = pathlib.Path(sys.argv[1])
shape = [int(n) for n in sys.argv[2:5]]
path = str(folder / "model.onnx")
onnx.checker.check_model(path, full_check=True)
model = onnx.load(path)
assert [o.version for o in model.opset_import] == [17] and model.ir_version == 8

pictures = numpy.fromfile(folder / "input.f32", dtype="<f4").reshape(-1, *shape)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
# Without this the int8 kernels of x86 CPUs that lack VNNI add pairs of products in 16 bits and saturate.
options.add_session_config_entry("session.x64quantprecision", "1")
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
assert [i.name for i in session.get_inputs()] == ["input"]
logits, features = session.run(["logits", "features"], {"input": pictures})
logits.astype("<f4").tofile(folder / "logits.f32")
features.astype("<f4").tofile(folder / "features.f32")
