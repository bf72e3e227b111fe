"""A real, tiny bundle: a working ONNX network of a few hundred weights, made without torch in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from rounds.core.records import Bundle, Calibration, Parents
from rounds.core.specs import ImagingSpec
from rounds.runtime.bundle import Reference, vary, write
from rounds.runtime.predictor import Network, Predictor
from rounds.runtime.scores import Scorer, fit_scoring
from rounds.runtime.verdict import decide
from rounds.stats.conformal import thresholds
from rounds.stats.metrics import softmax

FEATURES = 8


def tiny_films(
    n: int, *, size: int = 16, channels: int = 1, seed: int = 0, brightness: float = 1.0
) -> npt.NDArray[np.uint8]:
    """Noisy films uint8 (n, channels, size, size) whose mean lies between 51 and 204; `brightness` multiplies them."""
    random = np.random.default_rng(seed)
    level = random.uniform(0.2, 0.8, (n, 1, 1, 1))
    slope = random.normal(0, 0.1, (n, 1, 1, 1)) * np.linspace(-1, 1, size)[None, None, :, None]
    films = level + slope + random.normal(0, 0.06, (n, channels, size, size))
    return np.asarray(np.clip(films * brightness * 255, 0, 255).astype(np.uint8))


def tiny_truth(films: npt.NDArray[np.uint8], k: int = 2) -> npt.NDArray[np.int64]:
    """The true class of films: by mean brightness, in k equal steps from dark to bright."""
    level = films.mean((1, 2, 3)) / 255
    return np.clip((level - 0.2) / 0.6 * k, 0, k - 1).astype(np.int64)


def tiny_model(
    *, classes: int = 2, size: int = 16, channels: int = 1, seed: int = 0, bias: float = 0.0, noise: float = 0.3
) -> bytes:
    """An ONNX network that tells films by their brightness; `bias` is added to the last logit (it makes the model
    worse), `noise` is the weight of features that say nothing."""
    random = np.random.default_rng(seed)
    kernel = random.normal(0, 1 / 4, (FEATURES, channels, 4, 4))
    kernel[0] = 1 / (16 * channels)
    middles = 0.2 + 0.6 * (np.arange(classes) + 0.5) / classes
    head = random.normal(0, noise, (classes, FEATURES, 1, 1))
    # -30 (level - middle)^2 without the part that all classes share.
    head[:, 0, 0, 0] = 60 * middles
    shift = -30 * middles**2
    shift[-1] += bias
    weights = {"scale": np.array(1 / 255), "kernel": kernel, "head": head, "shift": shift}
    initializers = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    nodes = [
        helper.make_node("Cast", ["image"], ["raw"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["raw", "scale"], ["unit"]),
        helper.make_node("Conv", ["unit", "kernel"], ["features"], strides=[4, 4]),
        helper.make_node("Conv", ["features", "head", "shift"], ["activation"]),
        helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["embedding"]),
        helper.make_node("GlobalAveragePool", ["activation"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["logits"]),
    ]
    side = size // 4
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", channels, size, size])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", classes]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", FEATURES]),
            helper.make_tensor_value_info("activation", TensorProto.FLOAT, ["n", classes, side, side]),
        ],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def tiny_bundle(
    folder: Path,
    *,
    classes: Sequence[str] = ("normal", "opacity"),
    size: int = 16,
    channels: int = 1,
    seed: int = 0,
    bias: float = 0.0,
    data: str = "d" * 64,
    films: int = 300,
    model: bytes | None = None,
) -> Bundle:
    """A whole bundle under `folder` that answers, scores and judges `tiny_films`; its reference has `films` of them.
    `model` replaces the tiny network."""
    k = len(classes)
    imaging = ImagingSpec(size=size, channels=channels)
    model = model or tiny_model(classes=k, size=size, channels=channels, seed=seed, bias=bias)
    train = tiny_films(600, size=size, channels=channels, seed=seed + 1)
    held = tiny_films(films, size=size, channels=channels, seed=seed + 2)
    draft = Calibration(1.0, (0.0,) * k, 0.5 if k == 2 else None, (1.0,) * k, 0.1)
    network = Network(model)
    train_said, said = network.answer_all(train), network.answer_all(held)
    scoring = fit_scoring(train, train_said)
    truth = tiny_truth(held, k)
    limits = thresholds(softmax(said.logits), truth, 0.1)
    calibration = Calibration(1.0, (0.0,) * k, draft.threshold, tuple(limits.tolist()), 0.1)
    reference = Reference(
        label=truth,
        logits=said.logits,
        embedding=said.embedding,
        scores=Scorer(scoring).scores(held, said),
        subjects=[f"s{i:04d}" for i in range(films)],
        images=[f"{i:064x}" for i in range(films)],
    )
    parents = Parents(data=data, run=f"run-tiny-{seed}", config="c" * 64, code="tiny")
    return write(
        folder, model=model, classes=classes, imaging=imaging, calibration=calibration, scoring=scoring,
        parents=parents, reference=reference,
    )  # fmt: skip


def shifted_threshold(bundle: Bundle, folder: Path, threshold: float, variant: str = "recalibrated") -> Bundle:
    """The same bundle at another operating point."""
    old = bundle.calibration
    fresh = Calibration(old.temperature, old.bias, threshold, old.conformal, old.alpha)
    return vary(bundle, folder, variant=variant, calibration=fresh)


def predicted(bundle: Bundle, films: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """The classes that the bundle gives to films."""
    return decide(bundle.calibration, Predictor(bundle).answer(films).logits)[0]
