"""What every peer shares: the network, Pillow's pixels, and the bundle's own decision on the logits.

PEER_BUNDLE names the bundle's folder; PEER_MODEL, where set, another ONNX file with the same outputs.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from PIL import Image

FOLDER = Path(os.environ["PEER_BUNDLE"])
BUNDLE = json.loads((FOLDER / "bundle.json").read_text())
CLASSES, CALIBRATION, SIZE = BUNDLE["classes"], BUNDLE["calibration"], BUNDLE["imaging"]["size"]
MODE = "L" if BUNDLE["imaging"]["channels"] == 1 else "RGB"
MODEL = os.environ.get("PEER_MODEL", str(FOLDER / "model.onnx"))


def network(threads: int) -> ort.InferenceSession:
    """The network on so many threads, which wait without spinning."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])


def pixels(image: Image.Image) -> np.ndarray:
    """uint8 (c, size, size)."""
    array = np.asarray(image.convert(MODE).resize((SIZE, SIZE)))
    return array[None] if MODE == "L" else array.transpose(2, 0, 1)


def answers(logits: np.ndarray) -> list[dict[str, Any]]:
    """Class and probabilities of each film, by the bundle's temperature, bias and operating point."""
    scaled = logits / CALIBRATION["temperature"] + np.asarray(CALIBRATION["bias"])
    exp = np.exp(scaled - scaled.max(1, keepdims=True))
    shares = exp / exp.sum(1, keepdims=True)
    threshold = CALIBRATION["threshold"]
    chosen = shares.argmax(1) if threshold is None else (shares[:, 1] >= threshold).astype(int)
    return [
        {"class": CLASSES[label], "probabilities": dict(zip(CLASSES, row.tolist(), strict=True))}
        for label, row in zip(chosen, shares, strict=True)
    ]
