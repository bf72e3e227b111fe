"""A model that was trained elsewhere becomes a bundle's network: pixels in; logits, embedding, activation map out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from rounds.core.errors import CallerFault, Fault
from rounds.core.specs import ImagingSpec
from rounds.export.graph import folded
from rounds.export.head import SHAPING, SOFT, Graph, Head
from rounds.export.inlet import Normalisation, freed, inlet, misfits
from rounds.runtime.predictor import UNLOADABLE

TINY = 1e-7
SAME = 1e-3
IR_VERSION = 10

Pixels = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Brought:
    """A bundle's network; `absent` says why of each output that it lacks, `notes` what was understood of the model."""

    model: bytes
    absent: Mapping[str, str]
    notes: tuple[str, ...]


def bring(
    model: onnx.ModelProto,
    where: str,
    imaging: ImagingSpec,
    classes: int,
    normalisation: Normalisation | None,
    films: Pixels,
) -> Brought:
    """The network of an ONNX model with one input of images and one output over the classes.

    `films`: 8 or more real ones, uint8 (m, c, size, size), on which it is tried. `normalisation` is put into the graph
    before the model; None, which is refused, says that nobody knows it. Softmax and sigmoid at its end are taken
    off, other probabilities become logits by their logarithm, a single score is that of the last of two classes. A
    fixed batch size is freed. The embedding is what the last linear layer reads, and where that is the average of a
    feature map, the activation map is each class's weights over it: both are tried on the films before they are
    believed.

    Raises CallerFault with every reason at once why this model cannot serve.
    """
    faults = misfits(model, where, imaging, classes, normalisation)
    if faults or normalisation is None:
        raise refused(where, faults)
    notes: list[str] = []
    body = inlet(model, imaging, normalisation)
    if freed(body, model.graph.input):
        notes.append("its fixed batch size was freed")
    try:
        body = onnx.load_from_string(folded(body.SerializeToString()))
        tried = _Trial(body, where, films, classes)
    except UNLOADABLE as error:
        fault = Fault("ONNX Runtime cannot run it", where, "a graph that runs on a CPU", _short(error), _EXPORT)
        raise refused(where, [fault]) from error
    tried.scores(notes)
    tried.embedding()
    tried.activation()
    return Brought(tried.finished(), tried.absent, tuple(notes))


def refused(where: str, faults: Sequence[Fault]) -> CallerFault:
    """The error that names everything that keeps a model out."""
    return CallerFault(f"{where} cannot be brought along", faults)


class _Trial:
    """The graph as it grows, and what it says of the films."""

    def __init__(self, model: onnx.ModelProto, where: str, films: Pixels, classes: int) -> None:
        self._model, self._where, self._films, self._k = model, where, films, classes
        self._made: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._outputs: dict[str, tuple[int, ...]] = {}
        self.absent: dict[str, str] = {}
        self._graph = Graph(model)
        self._head: Head | None = None
        names = [output.name for output in model.graph.output]
        self._said = dict(zip(names, self._values(names), strict=True))

    def scores(self, notes: list[str]) -> None:
        """Find the output over the classes and make logits of it."""
        name = self._chosen()
        values, maker = self._said[name], self._graph.made_by(name, *SHAPING)
        single, soft = values.size == len(values), maker is not None and maker.op_type in SOFT
        source = maker.input[0] if maker is not None and soft else name
        self._head = self._graph.head(source)
        scores = self._node("Reshape", source, self._constant("columns", np.array([-1, 1 if single else self._k])))
        if maker is not None and soft:
            notes.append(f"the {maker.op_type.lower()} at its end was taken off")
        elif not single and values.min() >= 0 and np.allclose(values.sum(1), 1, atol=SAME):
            notes.append("its output is a probability: logits are the logarithm")
            floor = self._constant("floor", np.array(TINY, np.float32))
            scores = self._node("Log", self._node("Max", self._float(scores), floor))
        if single:
            notes.append("its single score is that of the last class")
            scores = self._beside_zero(scores)
        self._finish("logits", scores, (self._k,))

    def embedding(self) -> None:
        """Find what the last linear layer reads, as (n, d)."""
        if self._head is None:
            self.absent["embedding"] = "no linear layer was found behind its output"
            return
        reads, d = self._head.reads, self._head.weights.shape[1]
        values = self._values([reads])[0]
        if values.ndim == 4 and values.shape[1] == d and values[0].size > d:
            reads = self._node("GlobalAveragePool", reads)
        elif values.size != d * len(values):
            self.absent["embedding"] = f"the last linear layer reads {values.shape[1:]}, not one vector"
            return
        flat = self._node("Reshape", reads, self._constant("embedding_shape", np.array([-1, d])))
        self._finish("embedding", flat, (d,))

    def activation(self) -> None:
        """Draw each class's weights over the feature map whose average the linear layer reads."""
        if self._head is None or self._head.features is None:
            self.absent["activation"] = "no average over a feature map was found before the last linear layer"
            return
        weights, features = self._head.weights, self._head.features
        d = weights.shape[1]
        values = self._values([features])[0]
        if values.ndim == 4 and values.shape[1] != d and values.shape[3] == d:
            features = self._node("Transpose", features, perm=[0, 3, 1, 2])
            values = values.transpose(0, 3, 1, 2)
        if values.ndim != 4 or values.shape[1] != d:
            self.absent["activation"] = f"before the last linear layer stands {values.shape[1:]}, not a feature map"
            return
        if len(weights) == 1:
            weights = np.concatenate([0 * weights, weights])
        kernel = self._constant("class_weights", np.asarray(weights[:, :, None, None], np.float32))
        drawn = self._node("Conv", self._float(features), kernel)
        logits = self._values(["logits"], extended=True)[0]
        rest = logits - np.einsum("kd,nd->nk", weights, values.mean((2, 3)))
        if np.ptp(rest - rest[:, :1], axis=0).max() > SAME * max(1.0, float(np.abs(logits).max())):
            self.absent["activation"] = "its scores are not the average of a map of class weights"
            return
        self._finish("activation", drawn, (len(weights), *values.shape[2:]))

    def finished(self) -> bytes:
        """The whole graph, after it has given each film alone the answer that it gave in the batch."""
        done = self._extended(self._outputs)
        together = _run(done, list(self._outputs), self._films)
        alone = [_run(done, list(self._outputs), self._films[i : i + 1]) for i in range(2)]
        faults = []
        for place, name in enumerate(self._outputs):
            singly = np.concatenate([one[place] for one in alone])
            held, wanted = together[place][:2], (len(self._films), *self._outputs[name])
            if not np.isfinite(together[place]).all():
                faults.append(Fault("its answer is no number", name, "finite values", "NaN or infinity", _EXPORT))
            elif together[place].shape != wanted or np.abs(singly - held).max() > SAME * max(1.0, np.abs(held).max()):
                faults.append(Fault("a film's answer depends on its batch", name, "any batch size", next=_DYNAMIC))
        if faults:
            raise refused(self._where, faults)
        return bytes(done.SerializeToString())

    def _chosen(self) -> str:
        """The output over the classes: the one named logits, else the first that fits."""
        sizes = {self._k, 1} if self._k == 2 else {self._k}
        fitting: list[str] = [
            name
            for name, values in self._said.items()
            if values.ndim and values.shape[0] == len(self._films) and values.size // len(values) in sizes
        ]
        if not fitting:
            got = ", ".join(f"{name} {values.shape}" for name, values in self._said.items())
            fault = Fault("no output over the classes", self._where, f"(n, {self._k})", got, "check --classes")
            raise refused(self._where, [fault])
        return next((name for name in fitting if name.endswith("logits")), fitting[0])

    def _beside_zero(self, score: str) -> str:
        score = self._float(score)
        zero = self._node("Mul", score, self._constant("nought", np.array(0, np.float32)))
        return self._node("Concat", zero, score, axis=1)

    def _float(self, tensor: str) -> str:
        return self._node("Cast", tensor, to=TensorProto.FLOAT)

    def _finish(self, name: str, tensor: str, shape: tuple[int, ...]) -> None:
        self._made.append(helper.make_node("Cast", [tensor], [name], name=f"rounds/{name}", to=TensorProto.FLOAT))
        self._outputs[name] = shape

    def _node(self, kind: str, *inputs: str, **settings: Any) -> str:
        name = f"rounds/{len(self._made)}"
        self._made.append(helper.make_node(kind, list(inputs), [name], name=name, **settings))
        return name

    def _constant(self, name: str, values: npt.NDArray[np.generic]) -> str:
        self._weights.append(numpy_helper.from_array(values, f"rounds/{name}"))
        return f"rounds/{name}"

    def _values(self, names: list[str], *, extended: bool = False) -> list[Values]:
        model = self._extended(dict.fromkeys(names, None)) if extended else _asking(self._model, names)
        return _run(model, names, self._films)

    def _extended(self, outputs: Mapping[str, tuple[int, ...] | None]) -> onnx.ModelProto:
        model = _asking(self._model, [])
        model.graph.node.extend(self._made)
        model.graph.initializer.extend({tensor.name: tensor for tensor in self._weights}.values())
        for name, shape in outputs.items():
            known: list[str | int | None] | None = None if shape is None else ["n", *shape]
            model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, known))
        return model


def _asking(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The model with these tensors as its outputs."""
    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    asked.ir_version = min(max(model.ir_version, 8), IR_VERSION)
    known = {info.name: info for info in [*model.graph.output, *model.graph.value_info]}
    del asked.graph.output[:]
    asked.graph.output.extend(known.get(name) or onnx.ValueInfoProto(name=name) for name in names)
    return asked


def _run(model: onnx.ModelProto, names: Sequence[str], films: Pixels) -> list[Values]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    answers = session.run(list(names), {session.get_inputs()[0].name: np.ascontiguousarray(films)})
    return [np.asarray(values, np.float64) for values in answers]


def _short(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200]


_EXPORT = "export it again, to ONNX of operators that ONNX Runtime knows"
_DYNAMIC = "export it with a dynamic batch axis, in evaluation mode"
