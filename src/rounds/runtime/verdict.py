"""From the network's outputs to a decision: class, probabilities, conformal set, and whether a person should look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from rounds.core.records import Bundle, Calibration
from rounds.runtime.bundle import ByDigest, reference
from rounds.runtime.predictor import Outputs
from rounds.stats.metrics import softmax

RARE = 0.01


@dataclass(frozen=True, eq=False)
class Verdicts:
    """The decisions on n films: `label` int64 (n,), `probabilities` float64 (n, k), `members` bool (n, k) of the
    conformal set, `refer` bool (n,) with a `reason` for each that is referred (else None), and `ood` float32 (n,): the
    share of reference films at least as far from the training films, so near 0 is far out."""

    label: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]
    members: npt.NDArray[np.bool_]
    refer: npt.NDArray[np.bool_]
    reason: Sequence[str | None]
    ood: npt.NDArray[np.float32]

    def answers(
        self, bundle: Bundle, version: str, names: Sequence[str], ms: Sequence[float]
    ) -> Iterator[dict[str, Any]]:
        """The public answer of each film, under its prediction id and with its milliseconds."""
        classes, columns = bundle.classes, (self.label, self.probabilities, self.members, self.refer, self.ood)
        rows = zip(names, ms, self.reason, *(column.tolist() for column in columns), strict=True)
        for name, spent, reason, label, probabilities, members, refer, ood in rows:
            yield {
                "id": name,
                "class": classes[label],
                "probabilities": dict(zip(classes, probabilities, strict=True)),
                "set": [one for one, member in zip(classes, members, strict=True) if member],
                "refer": refer,
                "reason": reason,
                "ood": ood,
                "version": version,
                "bundle": bundle.digest,
                "ms": spent,
            }


class Judge:
    """A bundle's decisions, with the reference's distances held sorted; keep one per bundle in service.

    Raises DamagedBundle where the bundle's reference has changed.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._conformal = np.asarray(bundle.calibration.conformal)
        self._far = np.sort(_distances(bundle, reference(bundle).scores))

    def verdicts(self, outputs: Outputs, scores: npt.NDArray[np.float32]) -> Verdicts:
        """Decide on n films from the network's outputs and their scores float32 (n, 7).

        A film goes to a person when its conformal set is not exactly one class, or when fewer than 1 in 100 reference
        films lie as far out as it does ((1 + count) / (1 + n), the conformal p-value). Where the network has no
        embedding no film is found far out: `ood` is 1.
        """
        label, probabilities = decide(self.bundle.calibration, outputs.logits)
        members = 1.0 - probabilities <= self._conformal
        far = _distances(self.bundle, scores)
        at_least = len(self._far) - np.searchsorted(self._far, far, side="left")
        ood = ((1 + at_least) / (1 + len(self._far))).astype(np.float32)
        size = members.sum(1)
        strange = ood < RARE
        refer = (size != 1) | strange
        reason = [self._reason(members[i], bool(strange[i])) if refer[i] else None for i in range(len(label))]
        return Verdicts(label, probabilities, members, refer, reason, ood)

    def _reason(self, members: npt.NDArray[np.bool_], strange: bool) -> str:
        names = [name for name, member in zip(self.bundle.classes, members, strict=True) if member]
        parts = []
        if not names:
            parts.append("no class is likely enough: the conformal set is empty")
        elif len(names) > 1:
            parts.append(f"{len(names)} classes are likely enough: {', '.join(names)}")
        if strange:
            parts.append("the film is unlike the films the model was calibrated on")
        return "; ".join(parts)


def verdicts(bundle: Bundle, outputs: Outputs, scores: npt.NDArray[np.float32]) -> Verdicts:
    """The bundle's decisions on n films, see `Judge.verdicts`; the reference is loaded once per bundle."""
    return _judge(ByDigest(bundle)).verdicts(outputs, scores)


def decide(
    calibration: Calibration, logits: npt.NDArray[np.floating]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Classes int64 (n,) and calibrated probabilities float64 (n, k) of logits (n, k).

    Two classes: the last where its probability reaches the operating threshold; more: the most probable.
    """
    probabilities = softmax(logits.astype(np.float64) / calibration.temperature + np.asarray(calibration.bias))
    if calibration.threshold is None:
        return probabilities.argmax(1).astype(np.int64), probabilities
    return (probabilities[:, 1] >= calibration.threshold).astype(np.int64), probabilities


@lru_cache(maxsize=16)
def _judge(key: ByDigest) -> Judge:
    return Judge(key.bundle)


def _distances(bundle: Bundle, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    names = bundle.scoring.names
    return scores[:, names.index("embedding")] if "embedding" in names else np.zeros(len(scores), np.float32)
