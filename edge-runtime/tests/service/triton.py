"""The public Triton HTTP client against a running service: health, metadata, float tensors as JSON and as bytes, raw
pictures, errors. Usage: triton.py HOST:PORT"""

import sys

import numpy as np
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

client = http.InferenceServerClient(sys.argv[1])
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("tiny", "3")
assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
model = client.get_model_metadata("tiny")
shape = [2 if d == -1 else d for d in model["inputs"][0]["shape"]]
tensor = np.random.default_rng(1).normal(size=shape).astype(np.float32)


def ask(values, datatype, binary, outputs=None, **more):
    tensor = http.InferInput("input", list(values.shape), datatype)
    tensor.set_data_from_numpy(values, binary_data=binary)
    return client.infer("tiny", [tensor], outputs=outputs, **more)


as_bytes = ask(tensor, "FP32", True, request_id="mine")
assert as_bytes.get_response()["id"] == "mine"
as_json = ask(tensor, "FP32", False, [http.InferRequestedOutput(o["name"], binary_data=False) for o in model["outputs"]])
for output in model["outputs"]:
    one, other = as_bytes.as_numpy(output["name"]), as_json.as_numpy(output["name"])
    assert list(one.shape)[1:] == output["shape"][1:] and one.shape == other.shape, output["name"]
    if one.dtype.kind == "f":
        np.testing.assert_allclose(one, other, rtol=1e-6)
np.testing.assert_allclose(as_bytes.as_numpy("probabilities").sum(axis=1), 1, rtol=1e-6)
np.testing.assert_array_equal(as_bytes.as_numpy("logits").argmax(axis=1), as_bytes.as_numpy("class"))

pictures = np.random.default_rng(2).integers(0, 256, size=(3, 20, 30, 3), dtype=np.uint8)
seen = ask(pictures, "UINT8", True, [http.InferRequestedOutput("label"), http.InferRequestedOutput("map")])
assert len(seen.as_numpy("label")) == 3 and seen.as_numpy("logits") is None

for broken in (tensor[:, :2], np.repeat(tensor, 40, axis=0)):
    try:
        ask(broken, "FP32", True)
        raise SystemExit("a malformed request was answered")
    except InferenceServerException as error:
        assert "taken" in str(error), error
print("ok")
