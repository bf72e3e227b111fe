"""Variants of a bundle: eight bits, fewer channels, and the rule by which one may take its parent's place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from tests.support.bundles import tiny_films, tiny_truth
from tests.support.datasets import tiny_dataset
from tests.support.networks import fitted
from tests.support.workspace import opened

from rounds.core.errors import BadOverride, CallerFault
from rounds.core.records import Metric
from rounds.core.specs import AugmentSpec, ExportSpec, ImagingSpec, LoopSpec, ModelSpec, TrainSpec
from rounds.export.graph import Mirrored, to_onnx
from rounds.export.int8 import head_nodes, quantised
from rounds.export.prune import narrowed
from rounds.export.variants import Comparison, Timed, time_pairs
from rounds.loop import build as building
from rounds.loop import gating, intake, packing
from rounds.nets.names import build
from rounds.nets.network import Network as Net
from rounds.runtime.bundle import read, reference
from rounds.runtime.predictor import Network, Predictor

SIZE = 32


def drawn(spec: ModelSpec, films: npt.NDArray[np.uint8]) -> Net:
    return fitted(spec, films, tiny_truth(films), batches=10)


@pytest.fixture(scope="module")
def films() -> npt.NDArray[np.uint8]:
    return tiny_films(96, size=SIZE, seed=5)


@pytest.mark.parametrize("name", ["small", "resnet18"])
def test_eight_bits_are_a_quarter_of_the_bytes_and_say_the_same(name: str, films: npt.NDArray[np.uint8]) -> None:
    served = Mirrored(drawn(ModelSpec(name, width=0.25 if name == "resnet18" else 1.0), films))
    model = to_onnx(served, channels=1, size=SIZE)
    made, method, _ = quantised(model, films[:32], films[32:])
    before, after = Network(model).answer(films), Network(made).answer(films)
    assert method in ("minmax", "percentile", "entropy")
    # Random features are hard on eight bits: trained ones agree to 0.99 and better (python -m bench.int8).
    assert (before.logits.argmax(1) == after.logits.argmax(1)).mean() >= 0.93
    assert np.sqrt(np.square(after.logits - before.logits).mean()) < 0.2 * before.logits.std()
    for output in ("logits", "embedding", "activation"):
        assert getattr(before, output).shape == getattr(after, output).shape
    if name == "resnet18":
        assert len(made) < 0.3 * len(model)


def test_head_and_normalisation_stay_in_floats(films: npt.NDArray[np.uint8]) -> None:
    model = to_onnx(Mirrored(drawn(ModelSpec("resnet18", width=0.25), films)), channels=1, size=SIZE)
    graph = onnx.load_from_string(quantised(model, films[:16], films[16:48]).model).graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("Conv") == 1  # the class weights over the last feature map
    assert kinds.count("QLinearConv") == 20
    assert {"Gemm", "Sub", "Div"} <= set(kinds)
    named = {node.name: node.op_type for node in onnx.load_from_string(model).graph.node}
    assert "Conv" in {named[name] for name in head_nodes(onnx.load_from_string(model))}


def test_eight_bits_are_faster_on_a_residual_network(films: npt.NDArray[np.uint8]) -> None:
    model = to_onnx(drawn(ModelSpec("resnet18", width=0.5), films), channels=1, size=SIZE)
    made = quantised(model, films[:16], films[16:32]).model
    timed = time_pairs(Network(model), Network(made), films, 32)
    assert timed.speedup.low > 1.3
    assert timed.speedup.low <= timed.speedup.value <= timed.speedup.high


@pytest.mark.parametrize("name", ["small", "resnet18"])
def test_pruning_keeps_the_channels_whose_filters_are_longest(name: str, films: npt.NDArray[np.uint8]) -> None:
    width = 0.5 if name == "resnet18" else 1.0
    net = drawn(ModelSpec(name, width), films[:32])
    norms = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        # half of the channels of every layer say nothing: the narrower network is the same function
        for norm in norms:
            norm.weight[1::2] = 0
            norm.bias[1::2] = 0
    small, spec = narrowed(net, ModelSpec(name, width), 0.5, channels=1, size=SIZE)
    pixels = torch.from_numpy(films[:8])
    assert spec == ModelSpec(name, width / 2)
    assert sum(p.numel() for p in small.parameters()) < 0.45 * sum(p.numel() for p in net.parameters())
    assert small(pixels)[0].detach().numpy() == pytest.approx(net.eval()(pixels)[0].detach().numpy(), abs=1e-3)


def test_other_networks_and_the_narrowest_are_refused() -> None:
    net = build(ModelSpec("efficientnet_lite0"), channels=1, classes=2, size=SIZE)
    with pytest.raises(BadOverride, match=r"efficientnet_lite0 cannot be pruned\n.*expected small or resnet18"):
        narrowed(net, ModelSpec("efficientnet_lite0"), 0.5, channels=1, size=SIZE)
    narrow = build(ModelSpec("small", width=0.125), channels=1, classes=2, size=SIZE)
    with pytest.raises(BadOverride, match="small cannot be pruned further"):
        narrowed(narrow, ModelSpec("small", width=0.125), 0.9, channels=1, size=SIZE)


def compared(speedup: float = 3.0, low: float = -0.001, agreement: float = 1.0) -> Comparison:
    timed = Timed(3.0, 1.0, Metric(speedup, speedup - 0.1, speedup + 0.1))
    return Comparison(100, 10, 40, {1: timed, 32: timed}, Metric(0.0, low, 0.001), agreement)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (compared(), "faster at both batch sizes, AUC non-inferior and labels agree"),
        (
            compared(speedup=1.05),
            "not faster at batch 1: 1.05 times (0.95 to 1.15); not faster at batch 32: 1.05 times (0.95 to 1.15)",
        ),
        (compared(low=-0.02), "its AUC may be lower by 0.0200, and 0.01 is allowed"),
        (compared(low=float("nan")), "its AUC may be lower by nan, and 0.01 is allowed"),
        (compared(agreement=0.98), "0.9800 of the labels agree, and 0.99 is asked"),
    ],
)
def test_a_variant_is_kept_only_if_it_is_faster_as_good_and_agrees(found: Comparison, why: str) -> None:
    assert found.why == why
    assert found.kept == (why.startswith("faster"))


@pytest.mark.slow
def test_a_kept_variant_is_a_bundle_with_a_parent_that_the_gate_knows(tmp_path: Path) -> None:
    tiny = tiny_dataset(tmp_path / "data", size=SIZE)
    spec = TrainSpec(
        data=tiny.digest,
        imaging=ImagingSpec(size=SIZE),
        model=ModelSpec("resnet18", width=0.5),
        augment=AugmentSpec(),
        train=LoopSpec(epochs=4, lr=0.003, progress=False),
    )
    with opened(tmp_path) as ports:
        intake.enter(ports, tiny, why="a test")
        made = building.train(ports, spec, ExportSpec())
        answer = packing.optimise(ports, made["bundle"], ExportSpec())
        int8, pruned = answer["variants"]
        assert (answer["bundle"], answer["split"], answer["n"]) == (made["bundle"], "val", 200)
        assert int8["kept"], int8["why"]
        assert int8["bytes"] < 0.3 * answer["before"]["bytes"]
        assert (pruned["bundle"] is not None) == pruned["kept"]
        assert pruned["speedup_32"] > 1
        parent, child = (read(ports.bundles / digest) for digest in (made["bundle"], int8["bundle"]))
        assert (child.variant, child.parents) == ("int8", replace(parent.parents, bundle=parent.digest))
        same = ("temperature", "threshold", "alpha")
        old, new = parent.calibration, child.calibration
        assert [getattr(new, name) for name in same] == [getattr(old, name) for name in same]
        assert new.bias != old.bias
        assert new.bias == pytest.approx(old.bias, abs=0.5)  # moved by what the roundings moved the logits
        log = {event.evidence["bundle"]: event.evidence for event in ports.events.read() if event.kind == "packed"}
        # the operating point is the parent's, and so is the choice of it
        assert ["export" in log[one.digest] for one in (parent, child)] == [True, False]
        assert reference(child).images == reference(parent).images
        assert not np.array_equal(reference(child).logits, reference(parent).logits)
        assert Predictor(child).answer(tiny_films(3, size=SIZE)).logits.shape == (3, 2)
        assert gating.promote(ports, int8["bundle"])["passed"]
        assert gating.register(ports, int8["bundle"])["version"] == "v1"
        with pytest.raises(CallerFault, match="cannot be optimised further"):
            packing.optimise(ports, int8["bundle"], ExportSpec())
