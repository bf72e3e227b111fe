"""A trained network as an ONNX graph, proven to answer as torch does."""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from torch import Tensor, nn

from rounds.core.errors import Fault, OurFault
from rounds.runtime.predictor import OUTPUTS, Network

OPSET = 17


class Mirrored(nn.Module):
    """A network that looks at each film and at its mirror image, and answers with the mean of both.

    It costs twice the computation. The mirror image's activation map is mirrored back before the mean is taken.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # One batch of both: two passes took 1.2 times as long for a single film in int8 (ResNet-18 at 64 pixels).
        logits, embedding, activation = self.net(torch.cat([image, image.flip(3)]))
        straight, mirrored = activation.unflatten(0, (2, -1))
        both = [output.unflatten(0, (2, -1)).mean(0) for output in (logits, embedding)]
        return both[0], both[1], (straight + mirrored.flip(3)) / 2


def to_onnx(net: nn.Module, *, channels: int, size: int) -> bytes:
    """The graph of a network from uint8 (n, channels, size, size), for any n, to logits, embedding and activation.

    The TorchScript exporter: on these networks it takes 0.1 s where the newer one takes 1 to 6 s, for graphs that are
    equally fast and exact (measured on torch 2.13, which the project pins).
    """
    example = torch.zeros((2, channels, size, size), dtype=torch.uint8)
    sink = io.BytesIO()
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            torch.onnx.export(
                net.eval(),
                (example,),
                cast("Any", sink),  # the annotation forgets that this exporter takes a file
                input_names=["image"],
                output_names=list(OUTPUTS),
                dynamic_axes={name: {0: "n"} for name in ("image", *OUTPUTS)},
                opset_version=OPSET,
                dynamo=False,
            )
        finally:
            logger.setLevel(level)
    return sink.getvalue()


def folded(model: bytes) -> bytes:
    """The graph with its constants computed and its batch norms folded into the convolutions before them.

    Raises what ONNX Runtime raises where it cannot run the graph.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "folded.onnx"
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 4
        ort.InferenceSession(model, sess_options=options, providers=["CPUExecutionProvider"])
        return path.read_bytes()


def check_parity(net: nn.Module, network: Network, films: npt.NDArray[np.uint8], tolerance: float) -> float:
    """The largest difference between torch's outputs and ONNX Runtime's on films uint8 (n, c, h, w).

    It is measured on logits, embedding and activation, in units of max(1, the output's largest magnitude). Raises
    OurFault where it is above the tolerance.
    """
    worst = dict.fromkeys(OUTPUTS, 0.0)
    with torch.no_grad():
        for start in range(0, len(films), 50):
            batch = np.array(films[start : start + 50])  # a copy: torch warns of memory that it may not write to
            said = network.answer(batch)
            for name, wanted in zip(OUTPUTS, net(torch.from_numpy(batch)), strict=True):
                expected = wanted.numpy()
                gap = float(np.abs(getattr(said, name) - expected).max() / max(1.0, float(np.abs(expected).max())))
                worst[name] = max(worst[name], gap)
    faults = [
        Fault("the exported network answers otherwise", name, f"a difference of at most {tolerance:g}", f"{gap:g}")
        for name, gap in worst.items()
        if not gap <= tolerance
    ]
    if faults:
        raise OurFault("torch and ONNX Runtime disagree", faults)
    return max(worst.values())
