"""Switches of the training: precision, compilation, the profiler, rates by layer, and what a sheet of draws shows."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tests.train.test_train_fit import SPEC, Recorder, weights

from rounds.core.specs import AugmentSpec, LoopSpec, ModelSpec
from rounds.nets.names import build
from rounds.train.fit import fit
from rounds.train.optimise import optimise
from rounds.train.sheet import contact_sheet


def test_mixed_precision_computes_otherwise_and_keeps_whole_weights(make, tmp_path):
    dataset = make()
    full, mixed = (
        fit(replace(SPEC, train=replace(SPEC.train, precision=name)), dataset, runs=None, folder=tmp_path)
        for name in ("32-true", "bf16-mixed")
    )
    first, second = weights(full.checkpoint), weights(mixed.checkpoint)
    assert not torch.equal(first["head.weight"], second["head.weight"])
    assert {name: tensor.dtype for name, tensor in first.items()} == {
        name: tensor.dtype for name, tensor in second.items()
    }
    assert mixed.val["auc"] == pytest.approx(full.val["auc"], abs=0.02)


@pytest.mark.slow
def test_a_compiled_network_learns_the_same_and_its_weights_have_the_same_names(make, tmp_path):
    dataset = make()
    plain, compiled = (
        fit(replace(SPEC, train=replace(SPEC.train, compile=switch)), dataset, runs=None, folder=tmp_path)
        for switch in (False, True)
    )
    assert list(weights(plain.checkpoint)) == list(weights(compiled.checkpoint))
    assert compiled.val["auc"] == pytest.approx(plain.val["auc"], abs=0.02)


def test_the_profiler_leaves_a_table_and_a_trace_which_the_tracker_keeps(make, tmp_path, capfd):
    runs = Recorder()
    spec = replace(SPEC, train=replace(SPEC.train, profile=True))
    run = fit(spec, make(), runs=runs, folder=tmp_path)
    table = run.checkpoint.with_name("profile.txt").read_text()
    assert "aten::" in table
    assert "Self CPU time total" in table
    assert capfd.readouterr().err.count(table) == 1
    events = json.loads(run.checkpoint.with_name("trace.json").read_text())["traceEvents"]
    assert any("conv" in str(event.get("name")) for event in events)
    assert [call[2] for call in runs.calls if call[0] == "keep"][-2:] == ["profile.txt", "trace.json"]


def test_the_profiler_changes_nothing_that_is_learnt(make, tmp_path):
    dataset = make()
    one, other = (
        fit(
            replace(SPEC, train=replace(SPEC.train, epochs=1, profile=switch)), dataset, runs=None, folder=tmp_path
        ).checkpoint.read_bytes()
        for switch in (False, True)
    )
    assert one == other


def test_the_backbone_learns_at_its_share_of_the_rate_and_the_head_at_the_whole():
    net = build(ModelSpec(), channels=1, classes=2, size=28)
    optimizer, schedule = optimise(net, LoopSpec(lr=0.1, backbone_lr=0.01), 4)
    rates = {id(weight): group["initial_lr"] for group in optimizer.param_groups for weight in group["params"]}
    named = {name: rates.get(id(weight)) for name, weight in net.named_parameters()}
    assert named["head.weight"] == named["head.bias"] == 0.1
    assert named["whiten.weight"] is None, "what is not trained is not there"
    others = {rate for name, rate in named.items() if not name.startswith(("head.", "whiten."))}
    assert others == {0.1 * 0.01}
    schedule.step()
    shares = [group["lr"] / group["initial_lr"] for group in optimizer.param_groups]
    assert shares == pytest.approx([shares[0]] * len(shares)), "one schedule for all"


def test_a_backbone_at_rate_zero_stays_as_it_was(make, tmp_path):
    spec = replace(SPEC, train=replace(SPEC.train, epochs=1, backbone_lr=0.0, weight_decay=0.0))
    learnt = weights(fit(spec, make(), runs=None, folder=tmp_path).checkpoint)
    with torch.random.fork_rng():
        torch.manual_seed(spec.seed)
        fresh = build(spec.model, channels=1, classes=2, size=28).state_dict()
    kernel = "groups.0.conv1.weight"
    assert torch.equal(learnt[kernel], fresh[kernel])
    assert not torch.equal(learnt["head.weight"], fresh["head.weight"])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_contact_sheet_shows_films_as_they_are_and_in_seven_draws(make, channels):
    dataset = make(channels=channels)
    spec = replace(
        SPEC, imaging=replace(SPEC.imaging, channels=channels), augment=AugmentSpec(rotate=20, noise=0.1, mixup=0.4)
    )
    sheet = contact_sheet(spec, dataset)
    image = np.asarray(Image.open(io.BytesIO(sheet)))
    assert image.shape[2] == 3
    assert image.shape[0] > 6 * 112
    assert image.shape[1] > 8 * 112
    assert sheet == contact_sheet(spec, dataset)
    assert sheet != contact_sheet(replace(spec, seed=1), dataset)
