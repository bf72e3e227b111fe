"""What the watch remembers between two looks: the tests, how far it read, and whom it has seen, as bytes."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from rounds.core.errors import Fault, OurFault
from rounds.core.records import Bundle, Captured
from rounds.core.specs import MonitorSpec
from rounds.runtime.bundle import Reference
from rounds.runtime.verdict import decide
from rounds.stats.drift import DriftDetector
from rounds.stats.mix import BandTest

# Subjects and images remembered, 8 bytes each (1.6 MB at most); the oldest are forgotten first, so a subject that comes
# back after 100,000 others counts again.
SEEN = 200_000
RECENT = 200
_HASH = 8


@dataclass
class Memory:
    """The state of the watch over one bundle.

    `seq` is the last captured row that was folded in and `place` the number of this bundle's rows until then; `recent`
    holds (place, class, scores) of the last films taken; `skipped`, `thinned` and `unnamed` count films left out as
    seen before, left out to keep one in m, and taken without a subject; `broken` names each row that could not be
    taken.
    """

    bundle: str
    detector: DriftDetector
    mix: BandTest | None
    seq: int = 0
    place: int = 0
    skipped: int = 0
    thinned: int = 0
    unnamed: int = 0
    broken: list[str] = field(default_factory=list)
    broken_count: int = 0
    alarm_at: str | None = None
    recent: list[tuple[int, int, list[float]]] = field(default_factory=list)
    seen: OrderedDict[bytes, None] = field(default_factory=OrderedDict)

    @classmethod
    def begin(cls, bundle: Bundle, reference: Reference, spec: MonitorSpec) -> Memory:
        """A new watch, which knows the reference's films: they are in the bag already."""
        banded = has_band(spec)
        predicted, _ = decide(bundle.calibration, reference.logits)
        detector = DriftDetector(
            bundle.scoring.edges,
            reference.scores,
            predicted,
            classes=len(bundle.classes),
            horizon=spec.horizon,
            alpha=spec.alpha / 2 if banded else spec.alpha,
            seed=spec.seed,
            names=bundle.scoring.names,
        )
        mix = BandTest(spec.mix_low, spec.mix_high, horizon=spec.horizon, alpha=spec.alpha / 2) if banded else None
        memory = cls(bundle.digest, detector, mix)
        for subject, image in zip(reference.subjects, reference.images, strict=True):
            memory.notice(_hash("subject", subject), _hash("image", image))
        return memory

    def is_new(self, row: Captured) -> bool:
        """Whether neither the row's subject nor its image was seen; both are remembered from now on."""
        keys = [_hash("image", row.image)]
        if row.subject is not None:
            keys.append(_hash("subject", row.subject))
        known = any(key in self.seen for key in keys)
        self.notice(*keys)
        return not known

    def notice(self, *keys: bytes) -> None:
        """Remember, and forget the oldest beyond SEEN."""
        for key in keys:
            self.seen[key] = None
        while len(self.seen) > SEEN:
            self.seen.popitem(last=False)

    def dump(self) -> bytes:
        """The whole memory as JSON, exact to the last bit."""
        state: dict[str, Any] = {key: getattr(self, key) for key in _PLAIN}
        state["detector"] = self.detector.dump().decode()
        state["mix"] = self.mix.dump().decode() if self.mix else None
        state["seen"] = base64.b64encode(b"".join(self.seen)).decode()
        return json.dumps(state, separators=(",", ":"), allow_nan=False).encode()

    @classmethod
    def load(cls, data: bytes) -> Memory:
        """The memory that `dump` wrote; OurFault where the bytes are not one."""
        try:
            state = json.loads(data)
            packed = base64.b64decode(state["seen"], validate=True)
            memory = cls(
                detector=DriftDetector.load(state["detector"].encode()),
                mix=BandTest.load(state["mix"].encode()) if state["mix"] else None,
                **{key: state[key] for key in _PLAIN},
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            fault = Fault(
                "not the state of a watch", "watch", "what the last look wrote", f"{type(error).__name__}: {error}"
            )
            raise OurFault("the state of the watch cannot be read", [fault]) from error
        memory.recent = [(place, c, scores) for place, c, scores in memory.recent]
        memory.seen = OrderedDict((packed[i : i + _HASH], None) for i in range(0, len(packed), _HASH))
        return memory


_PLAIN = (
    "bundle",
    "seq",
    "place",
    "skipped",
    "thinned",
    "unnamed",
    "broken",
    "broken_count",
    "alarm_at",
    "recent",
)


def has_band(spec: MonitorSpec) -> bool:
    """Whether the operator declared a band for the class mix; 0..1, which nothing leaves, is none."""
    return spec.mix_low < spec.mix_high and (spec.mix_low, spec.mix_high) != (0.0, 1.0)


def _hash(kind: str, value: str) -> bytes:
    return hashlib.blake2b(f"{kind}\x1f{value}".encode(), digest_size=_HASH).digest()
