"""A ward without HTTP: films that the champion answers and the workspace keeps, and a person who labels them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from tests.support.bundles import tiny_bundle, tiny_films, tiny_model, tiny_truth
from tests.support.datasets import tiny_dataset

from rounds.capture.capture import audited, pseudonym
from rounds.core.ports import Ports
from rounds.core.records import Bundle, Captured, DatasetVersion, Label
from rounds.core.specs import GateSpec, MonitorSpec, PolicySpec
from rounds.imaging.fit import encode_png, to_pixels
from rounds.loop import gating, intake, labelling, measuring, ruling
from rounds.registry.catalogue import Catalogue
from rounds.runtime.predictor import Predictor
from rounds.runtime.scores import scores
from rounds.runtime.verdict import verdicts

Pixels = npt.NDArray[np.uint8]
Scanner = Callable[[Pixels], Pixels]
CLASSES = ("normal", "opacity")
STRIPES = np.array([1.0, 1.0, -1.0, -1.0])
RULES = ruling.Rules(
    GateSpec(max_ece=0.3, max_auc_drop=0.2),  # a hundred sealed subjects cannot show less at these levels
    MonitorSpec(horizon=2000, risk_horizon=1000, audit_share=0.6, risk_tolerance=0.02),
    PolicySpec(labels_to_recalibrate=40, labels_to_prove=40, labels_to_retrain=100, cooldown_s=0.0),
)


def same(films: Pixels) -> Pixels:
    """The scanner as it was."""
    return films


def darker(films: Pixels) -> Pixels:
    """A scanner that exposes less: what a refit of the outputs cures."""
    return np.asarray((films * 0.8).astype(np.uint8))


def striped(films: Pixels) -> Pixels:
    """A scanner with a broken grid: what fools a network that looks at stripes, and no refit cures."""
    strength = np.random.default_rng(int(films[:, 0, 0, 0].sum())).normal(0, 0.3, (len(films), 1, 1, 1))
    stripes = np.tile(STRIPES, films.shape[3] // 4)[None, None, None, :]
    return np.asarray(np.clip(films + 255 * strength * stripes, 0, 255).astype(np.uint8))


def model_that_sees_stripes(weight: float = 15.0) -> bytes:
    """The tiny network with one more feature, the strength of stripes, that speaks for the last class."""
    model = onnx.load_from_string(tiny_model(noise=0.0))
    for part in model.graph.initializer:
        values = numpy_helper.to_array(part).copy()
        if part.name == "kernel":
            values[1] = np.tile(STRIPES, (4, 1)) / 16
        elif part.name == "head":
            values[1, 1] = weight
        part.CopyFrom(numpy_helper.from_array(values, part.name))
    return bytes(model.SerializeToString())


@dataclass
class Ward:
    """Sends films of ever new subjects to whoever is champion, and knows their truth."""

    ports: Ports
    seed: int = 1000
    truth: dict[str, str] = field(default_factory=dict)
    sent: int = 0

    def send(self, n: int, scanner: Scanner = same, *, subjects: Sequence[str | None] | None = None) -> list[Captured]:
        """Answer n new films with the champion, as the server does, and keep films and answers."""
        films = tiny_films(n, seed=self.seed + self.sent)
        named = [f"subject-{self.sent + i}" for i in range(n)] if subjects is None else subjects
        self.sent += n
        return self.answer(scanner(films), [CLASSES[c] for c in tiny_truth(films)], named)

    def answer(self, films: Pixels, truth: Sequence[str], subjects: Sequence[str | None]) -> list[Captured]:
        """Answer these films, uint8 (n, c, h, w)."""
        ports, champion = self.ports, Catalogue.of(self.ports.events.read()).champion
        assert champion is not None
        bundle, share = measuring.open_bundle(ports, "champion"), ruling.in_force(ports).monitor.audit_share
        data = [encode_png(film) for film in films]
        pixels = np.stack([to_pixels(one, bundle.imaging) for one in data])
        outputs = Predictor(bundle).answer(pixels)
        table = scores(bundle, pixels, outputs)
        found, at = verdicts(bundle, outputs, table), ports.clock()
        rows = []
        for i, one in enumerate(data):
            name, subject = f"p_{len(self.truth):06d}", subjects[i]
            self.truth[name] = truth[i]
            kept = Captured(
                prediction=name,
                at=at,
                bundle=bundle.digest,
                version=champion.version,
                image=ports.blobs.put(one),
                label=bundle.classes[found.label[i]],
                probabilities=tuple(found.probabilities[i].tolist()),
                logits=tuple(outputs.logits[i].tolist()),
                scores=tuple(table[i].tolist()),
                audited=audited(ports.secret, name, share),
                ms=1.0,
                subject=None if subject is None else pseudonym(ports.secret, subject),
            )
            rows.append(kept)
        ports.captures.record(rows)
        return rows

    def label_audited(self) -> int:
        """Answer the audit's questions; how many labels were taken."""
        return self.label(labelling.audit_queue(self.ports))

    def label(self, rows: Sequence[Captured]) -> int:
        """Tell the truth about these answers; how many labels were taken."""
        labels = [Label(self.truth[row.prediction], row.prediction, by="test") for row in rows]
        return int(labelling.attach(self.ports, labels)["accepted"])


def dataset_in(ports: Ports, **given: Any) -> DatasetVersion:
    """A tiny data set that the log knows."""
    dataset = tiny_dataset(ports.datasets, **given)
    intake.enter(ports, dataset, why="a test", who="test")
    return dataset


def packed(ports: Ports, dataset: DatasetVersion, **given: Any) -> Bundle:
    """A tiny bundle, made of this data set as far as the log knows; `given` goes to tiny_bundle."""
    bundle = tiny_bundle(ports.bundles, data=dataset.digest, **given)
    path = str(bundle.path.relative_to(ports.home))
    evidence = {"bundle": bundle.digest, "path": path, "run": bundle.parents.run, "data": dataset.digest}
    ports.events.append("packed", who="test", why="a test", evidence=evidence | {"parent": None})
    return bundle


def begin(ports: Ports, rules: ruling.Rules = RULES, **given: Any) -> tuple[Ward, Bundle]:
    """Rules, a data set, and a first champion that passed the gate; `given` goes to tiny_bundle."""
    ruling.change(ports, rules, who="test", why="short horizons")
    bundle = packed(ports, dataset_in(ports), **given)
    gating.promote(ports, bundle.digest, who="test")
    return Ward(ports), bundle


def kinds(ports: Ports, *wanted: str) -> list[str]:
    """The kinds of the log's events, in order, of all or of these."""
    return [event.kind for event in ports.events.read(kinds=wanted)]
