"""Checks the ONNX file that comes on standard input with onnx.checker, its operator set and its version of the format."""

import sys

import onnx

model = onnx.load_from_string(sys.stdin.buffer.read())
onnx.checker.check_model(model, full_check=True)
assert [o.version for o in model.opset_import] == [17] and model.ir_version == 8
