"""The endpoint as tutorials write it: FastAPI, UploadFile, Pillow, and ONNX Runtime as it comes.

uvicorn tutorial:app --port P --log-level warning

PEER_THREADS=1 gives the session one thread that does not spin, which few tutorials know.
"""

import io
import os

import onnxruntime as ort
from common import MODEL, answers, network, pixels
from fastapi import FastAPI, UploadFile
from PIL import Image

app = FastAPI()
session = network(1) if os.environ.get("PEER_THREADS") == "1" else ort.InferenceSession(MODEL)


@app.post("/predict")
async def predict(file: UploadFile):
    image = Image.open(io.BytesIO(await file.read()))
    logits = session.run(["logits"], {session.get_inputs()[0].name: pixels(image)[None]})[0]
    return answers(logits)[0]
