"""What was answered, again: the same words from what was kept, and a picture of where the model looked."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from rounds.core.errors import BadRequest, Fault, UnknownId
from rounds.core.ids import plain
from rounds.core.ports import Ports
from rounds.core.records import Bundle, Captured, Prediction
from rounds.imaging.decode import decode
from rounds.imaging.fit import fit
from rounds.imaging.overlay import Style, explained
from rounds.imaging.packed import ADMITTED
from rounds.registry.catalogue import Catalogue
from rounds.runtime import bundle as bundles
from rounds.runtime.predictor import Outputs, Predictor
from rounds.runtime.verdict import verdicts

T = TypeVar("T")

KEPT = 3


@dataclass(frozen=True)
class View:
    """How an explanation is drawn: for `label` (None is the class that was answered), with this opacity, 0 to 1."""

    label: str | None = None
    style: Style = Style.HEAT
    opacity: float = 0.6


@dataclass(frozen=True, eq=False)
class Memory:
    """Recalls answers of one workspace; safe to share by threads. It holds the networks of the last few bundles."""

    ports: Ports
    _bundles: OrderedDict[str, Bundle] = field(default_factory=OrderedDict)
    _networks: OrderedDict[str, Predictor] = field(default_factory=OrderedDict)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def row(self, prediction: str) -> Captured:
        """What was kept of an answer; UnknownId where there is nothing, or no more."""
        found = self.ports.captures.find(prediction)
        if found is None:
            fault = Fault("no such prediction", "id", "the id of an answer", "none", "it may have been erased since")
            raise UnknownId("no prediction of this id", [fault])
        return found

    def prediction(self, row: Captured) -> Prediction:
        """The answer as it was given. Raises UnknownId or DamagedBundle where its bundle is no more."""
        bundle = self._bundle(row.bundle)
        logits = np.asarray([row.logits], np.float32)
        nothing = np.empty((1, 0), np.float32)
        outputs = Outputs(logits, nothing, np.empty((1, 0, 0, 0), np.float32))
        found = verdicts(bundle, outputs, np.asarray([row.scores], np.float32).reshape(1, -1))
        return Prediction(
            id=row.prediction,
            label=row.label,
            probabilities=dict(zip(bundle.classes, row.probabilities, strict=True)),
            set=tuple(name for name, member in zip(bundle.classes, found.members[0], strict=True) if member),
            refer=bool(found.refer[0]),
            reason=found.reason[0],
            ood=float(found.ood[0]),
            version=row.version,
            bundle=row.bundle,
            ms=row.ms,
            reference=row.reference,
        )

    def told(self, prediction: str) -> dict[str, Any]:
        """The answer as it was given, when, and what the film truly showed where somebody said so; UnknownId."""
        row = self.row(prediction)
        label = self.ports.captures.labels([prediction]).get(prediction)
        truth = {"label": label.label, "by": label.by, "at": plain(label.at)} if label else None
        return self.prediction(row).public() | {"at": plain(row.at), "label": truth}

    def explanation(self, prediction: str, view: View) -> bytes:
        """A PNG of the film, at most 1,024 pixels a side, with what spoke for a class laid over it.

        Raises UnknownId where the answer or its image is no more and for an unknown class, BadRequest (422) where the
        bundle's network says nothing of places.
        """
        row = self.row(prediction)
        if row.gone or not self.ports.blobs.has(row.image):
            then = "`rounds policy` says how long images are kept"
            raise UnknownId("the image of this prediction is no longer kept", [Fault("the image is gone", next=then)])
        bundle = self._bundle(row.bundle)
        label = row.label if view.label is None else view.label
        if label not in bundle.classes:
            fault = Fault("no such class", "query class", ", ".join(bundle.classes), repr(label)[:80])
            raise UnknownId("the class is not one of the model's", [fault])
        network = self._network(bundle)
        if "activation" in network.network.absent:
            fault = Fault("the network has no activation map", bundle.digest[:12], "an output named activation", "none")
            raise BadRequest("this model cannot be explained so", [fault], status=422)
        film = decode(self.ports.blobs.get(row.image), ADMITTED)
        maps = network.answer(fit(film, bundle.imaging)[None]).activation[0]
        k = bundle.classes.index(label)
        # what spoke for this class more than for the next most likely one
        other = max((i for i in range(len(maps)) if i != k), key=lambda i: row.logits[i])
        return explained(film, maps[k] - maps[other], bundle.imaging.fit, view.style, view.opacity)

    def _bundle(self, digest: str) -> Bundle:
        with self._turn:
            found = self._bundles.get(digest)
        if found is None:
            catalogue = Catalogue.of(self.ports.events.read())
            found = bundles.read(self.ports.home / catalogue.bundle(digest).path)
        with self._turn:
            _keep(self._bundles, digest, found, 4 * KEPT)
        return found

    def _network(self, bundle: Bundle) -> Predictor:
        with self._turn:
            found = self._networks.get(bundle.digest)
        if found is None:
            found = Predictor(bundle)
        with self._turn:
            _keep(self._networks, bundle.digest, found, KEPT)
        return found


def _keep(kept: OrderedDict[str, T], key: str, value: T, most: int) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)
