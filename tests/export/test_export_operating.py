"""The operating point of a bundle is the one that the recipe asks for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from tests.support.bundles import tiny_model
from tests.support.datasets import tiny_dataset

from rounds.conf.resolve import resolve
from rounds.core.specs import ExportSpec, ImagingSpec, OperatingSpec
from rounds.export.calibrated import _fit
from rounds.imaging.packed import Films
from rounds.runtime.predictor import Network
from rounds.runtime.verdict import decide


def test_overrides_choose_the_policy_and_the_bundle_keeps_to_it(tmp_path: Path) -> None:
    films = Films(tiny_dataset(tmp_path, splits={"val": 400}).path)
    network, pixels, val = Network(tiny_model(noise=4.0)), films.pixels(ImagingSpec(size=16)), films.rows("val")

    def sensitivity(*overrides: str) -> float:
        spec = resolve([f"export.operating.{name}" for name in overrides])[1]
        said = decide(_fit(network, pixels, val, spec), network.answer_all(pixels, index=val.index).logits)[0]
        return float((said[val.labels == 1] == 1).mean())

    youden = sensitivity("robust=false")
    assert 0.9 <= sensitivity("policy=sensitivity", "min_sensitivity=0.9", "robust=false") < 0.98
    assert sensitivity("policy=cost", "cost_false_negative=50", "robust=false") >= youden
    assert sensitivity("policy=cost", "cost_false_positive=50", "robust=false") < youden


def test_a_robust_threshold_looks_at_stressed_films_too(tmp_path: Path) -> None:
    films = Films(tiny_dataset(tmp_path, splits={"val": 400}).path)
    network, pixels, val = Network(tiny_model()), films.pixels(ImagingSpec(size=16)), films.rows("val")
    plain = ExportSpec(operating=OperatingSpec(robust=False))
    alone, both = (_fit(network, pixels, val, spec).threshold for spec in (plain, ExportSpec()))
    assert alone is not None
    assert both is not None
    assert alone != both
    assert np.isclose(both, _fit(network, pixels, val, replace(plain, operating=OperatingSpec())).threshold or 0)
