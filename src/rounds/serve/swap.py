"""The versions in service: while some answer, the next is made ready beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rounds.core.errors import DamagedBundle, Fault
from rounds.core.records import Bundle
from rounds.core.specs import ServeSpec
from rounds.runtime.bundle import read
from rounds.runtime.predictor import Outputs, Predictor
from rounds.runtime.scores import Scorer
from rounds.runtime.verdict import Judge, Verdicts


@dataclass(frozen=True, eq=False)
class Answered:
    """What a bundle says of n films: the network's outputs, scores float32 (n, K), and the decisions on them."""

    outputs: Outputs
    scores: npt.NDArray[np.float32]
    verdicts: Verdicts


@dataclass(frozen=True, eq=False)
class Seated:
    """A version in service, with everything of its bundle that answering needs; immutable, so a batch that began with
    it ends with it."""

    version: str
    bundle: Bundle
    predictor: Predictor
    scorer: Scorer
    judge: Judge

    def answer(self, pixels: npt.NDArray[np.uint8]) -> Answered:
        """Answer films uint8 (n, c, size, size), n >= 1. Raises OurFault where the network answers with NaN."""
        outputs = self.predictor.answer(pixels)
        scores = self.scorer.scores(pixels, outputs)
        return Answered(outputs, scores, self.judge.verdicts(outputs, scores))


class Seats:
    """The versions that a worker has made ready, by name; one thread changes them, any thread reads them."""

    def __init__(self, spec: ServeSpec) -> None:
        self._spec = spec
        self._taken: dict[str, Seated] = {}

    def __getitem__(self, version: str) -> Seated:
        return self._taken[version]

    def take(self, version: str, path: Path, digest: str) -> Seated:
        """Load, verify and warm up the bundle at `path`; the others answer meanwhile.

        Raises:
            UnknownId: there is no bundle.
            DamagedBundle: its bytes are not those of the digest, or its network does not run. The others stay.
        """
        bundle = read(path)
        if bundle.digest != digest:
            other = Fault("another bundle lies here", str(path), digest, bundle.digest, "export the run again")
            raise DamagedBundle(f"version {version} is not the bundle at {path}", [other])
        seated = Seated(version, bundle, Predictor(bundle, self._spec.threads), Scorer(bundle.scoring), Judge(bundle))
        self._warm_up(seated)
        self._taken = {**self._taken, version: seated}
        return seated

    def leave(self, version: str) -> None:
        """Forget a version; a batch that holds it ends with it."""
        self._taken = {name: seated for name, seated in self._taken.items() if name != version}

    def _warm_up(self, seated: Seated) -> None:
        """The first run of a shape allocates; no client should wait for that."""
        spec = seated.bundle.imaging
        for n in (self._spec.max_batch, 1):
            seated.answer(np.zeros((n, spec.channels, spec.size, spec.size), np.uint8))
