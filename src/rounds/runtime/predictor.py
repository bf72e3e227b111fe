"""The network of a bundle, run by ONNX Runtime on the CPU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as _state

from rounds.core.errors import DamagedBundle, Fault, OurFault
from rounds.core.records import Bundle
from rounds.runtime.bundle import MODEL, model_bytes

OUTPUTS = ("logits", "embedding", "activation")
Index = npt.NDArray[np.int64]

# ONNX Runtime's errors have no common class below Exception.
UNLOADABLE: tuple[type[Exception], ...] = (
    RuntimeError,
    _state.Fail,
    _state.InvalidArgument,
    _state.InvalidGraph,
    _state.InvalidProtobuf,
    _state.NotImplemented,
    _state.RuntimeException,
)


@dataclass(frozen=True, eq=False)
class Outputs:
    """What the network says of n films: `logits` float32 (n, k) before temperature and bias, `embedding` float32
    (n, d), `activation` float32 (n, k, h', w') (the class activation map). The network of an imported bundle may lack
    the latter two: (n, 0) and (n, 0, 0, 0) then."""

    logits: npt.NDArray[np.float32]
    embedding: npt.NDArray[np.float32]
    activation: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.logits)


class Network:
    """An ONNX graph with the input and outputs of a bundle's network, ready to answer; safe to share by threads.

    `absent` names the outputs that it lacks. Raises DamagedBundle where the bytes are no graph that runs here, or one
    with another input or other outputs.
    """

    def __init__(self, model: bytes, threads: int = 1, *, where: str = MODEL) -> None:
        try:
            session = ort.InferenceSession(model, sess_options=_options(threads), providers=["CPUExecutionProvider"])
        except UNLOADABLE as error:
            fault = Fault("no network that runs here", where, "an ONNX graph", str(error)[:200], "export the run again")
            raise DamagedBundle(f"{where} cannot be loaded", [fault]) from error
        _check(session, where)
        self._session = session
        node = session.get_inputs()[0]
        self._input: str = node.name
        self._shape: tuple[int, ...] = tuple(node.shape[1:])
        self._names = [node.name for node in session.get_outputs()]
        self.absent = tuple(name for name in OUTPUTS if name not in self._names)

    def answer(self, pixels: npt.NDArray[np.uint8]) -> Outputs:
        """The outputs for uint8 (n, c, h, w), n >= 1.

        Raises OurFault where the pixels are not of that kind or the network answers with NaN or infinity.
        """
        if pixels.dtype != np.uint8 or pixels.shape[1:] != self._shape or not len(pixels):
            expected = f"uint8 (n >= 1, {', '.join(map(str, self._shape))})"
            fault = Fault("wrong pixels", "pixels", expected, f"{pixels.dtype} {pixels.shape}")
            raise OurFault("the network got pixels of another kind", [fault])
        said = dict(zip(self._names, self._session.run(self._names, {self._input: pixels}), strict=True))
        logits, n = said["logits"], len(pixels)
        if not np.isfinite(logits).all():
            fault = Fault("the network's answer is no number", MODEL, "finite logits", "NaN or infinity")
            raise OurFault("the network answers with NaN or infinity", [fault])
        embedding, activation = said.get("embedding"), said.get("activation")
        return Outputs(
            logits,
            np.empty((n, 0), np.float32) if embedding is None else embedding,
            np.empty((n, 0, 0, 0), np.float32) if activation is None else activation,
        )

    def answer_all(self, pixels: npt.NDArray[np.uint8], *, index: Index | None = None, batch: int = 64) -> Outputs:
        """The outputs for many films, computed in batches: for all of `pixels`, or those at `index` int64 (m,).

        `activation` is left empty (m, 0, 0, 0), since for many films it would fill the memory.
        """
        rows = np.arange(len(pixels)) if index is None else index
        parts = [self.answer(pixels[rows[at : at + batch]]) for at in range(0, len(rows), batch)]
        return Outputs(
            logits=np.concatenate([part.logits for part in parts]),
            embedding=np.concatenate([part.embedding for part in parts]),
            activation=np.empty((len(rows), 0, 0, 0), np.float32),
        )


class Predictor:
    """A bundle's network, loaded from bytes that were compared with the bundle's digest; safe to share by threads.

    Raises DamagedBundle where the file has changed or is not a network of the bundle's kind.
    """

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        self.bundle = bundle
        self.network = Network(model_bytes(bundle), threads, where=str(bundle.path / MODEL))

    def answer(self, pixels: npt.NDArray[np.uint8]) -> Outputs:
        """The network's outputs for uint8 (n, c, size, size), n >= 1; OurFault for other pixels, NaN or infinity."""
        return self.network.answer(pixels)


def _check(session: ort.InferenceSession, where: str) -> None:
    inputs = [(node.type, len(node.shape)) for node in session.get_inputs()]
    outputs = tuple((node.name, node.type) for node in session.get_outputs())
    faults = []
    if inputs != [("tensor(uint8)", 4)]:
        faults.append(
            Fault("wrong inputs", where, "one input, uint8 (n, c, h, w)", str(inputs), "export the run again")
        )
    # Bundles of the house have all three in this order; imported ones may lack all but the first.
    named = tuple((name, "tensor(float)") for name in OUTPUTS)
    if outputs[:1] != named[:1] or outputs != tuple(one for one in named if one in outputs):
        expected = f"float {', '.join(OUTPUTS)} in this order, the latter two if at all"
        faults.append(Fault("wrong outputs", where, expected, str(outputs), "export the run again"))
    if faults:
        raise DamagedBundle(f"{where} is not a network of this house", faults)


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads burn a core between requests that the HTTP server needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Batches differ in length from call to call: a memory plan per shape would be kept for each of them.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return options
