"""The same work served from Python: a picture posted to /v1/predict, decoded by Pillow, resized, run by ONNX Runtime with
one thread a request over a pool of one worker a core, softmax and class map back as JSON. Usage:
peer.py BUNDLE.excon PORT"""

import asyncio
import io
import json
import os
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime as ort
from aiohttp import web
from PIL import Image

with tarfile.open(sys.argv[1]) as bundle:
    manifest = json.load(bundle.extractfile("manifest.json"))
    model = bundle.extractfile("model.onnx").read()
options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
size, labels = manifest["preprocess"]["size"], manifest["labels"]
mean, std = (np.array(manifest["preprocess"][k], np.float32).reshape(3, 1, 1) for k in ("mean", "std"))
temperature = manifest["calibration"]["temperature"]
name = manifest["network"]["input_name"]
pool = ThreadPoolExecutor(os.cpu_count())


def predict(body):
    picture = Image.open(io.BytesIO(body)).convert("RGB").resize((size, size), Image.BILINEAR)
    tensor = (np.asarray(picture, np.float32).transpose(2, 0, 1) / 255 - mean) / std
    logits, features = session.run(["logits", "features"], {name: tensor[None]})
    scaled = logits[0] / temperature
    odds = np.exp(scaled - scaled.max())
    probabilities = odds / odds.sum()
    return {
        "label": labels[int(probabilities.argmax())],
        "probabilities": dict(zip(labels, map(float, probabilities))),
        "map": features[0].mean(axis=0).ravel().tolist(),
    }


async def answer(request):
    body = await request.read()
    return web.json_response(await asyncio.get_running_loop().run_in_executor(pool, predict, body))


app = web.Application(client_max_size=8 << 20)
app.router.add_post("/v1/predict", answer)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[2]), print=None, access_log=None)
