"""A variant of a bundle beside its parent: size, speed, AUC and labels, and whether it may take the parent's place."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rounds.core.ids import plain
from rounds.core.records import Bundle, Metric
from rounds.export.calibrated import Seen
from rounds.runtime.bundle import MODEL
from rounds.runtime.predictor import Network, Predictor
from rounds.runtime.verdict import decide
from rounds.stats.difference import area_difference

BATCHES = (1, 32)
REPEATS = {1: 31, 32: 11}
AUC_MARGIN = 0.01
AGREEMENT = 0.99


@dataclass(frozen=True)
class Timed:
    """Milliseconds that a batch takes the parent and the variant (medians), and how many times as fast the variant is:
    the median over pairs of runs, from the 10 % to the 90 % quantile."""

    before: float
    after: float
    speedup: Metric


@dataclass(frozen=True)
class Comparison:
    """A variant against its parent on `n` validation films: bytes of the graph, times by batch, the variant's AUC minus
    the parent's with its 95 % interval, and the share of films that both give the same label."""

    n: int
    bytes: int
    bytes_before: int
    times: Mapping[int, Timed]
    auc_difference: Metric
    agreement: float

    @property
    def kept(self) -> bool:
        return not self._reasons()

    @property
    def why(self) -> str:
        """Why it is kept, or every reason why not."""
        held = "faster at both batch sizes, AUC non-inferior and labels agree"
        return "; ".join(self._reasons()) or held

    def _reasons(self) -> list[str]:
        slow = [batch for batch, timed in self.times.items() if not timed.speedup.low > 1]
        reasons = [f"not faster at batch {batch}: {_ratio(self.times[batch].speedup)}" for batch in slow]
        # An interval that cannot be told is no proof.
        if not self.auc_difference.low >= -AUC_MARGIN:
            reasons.append(f"its AUC may be lower by {-self.auc_difference.low:.4f}, and {AUC_MARGIN:g} is allowed")
        if not self.agreement >= AGREEMENT:
            reasons.append(f"{self.agreement:.4f} of the labels agree, and {AGREEMENT:g} is asked")
        return reasons

    def public(self) -> dict[str, Any]:
        difference = self.auc_difference
        return {
            "kept": self.kept,
            "why": self.why,
            "bytes": self.bytes,
            **{f"ms_{batch}": timed.after for batch, timed in self.times.items()},
            **{f"speedup_{batch}": timed.speedup.value for batch, timed in self.times.items()},
            **{f"spread_{batch}": [timed.speedup.low, timed.speedup.high] for batch, timed in self.times.items()},
            "auc_difference": plain(difference) if np.isfinite(difference.low) else None,
            "agreement": self.agreement,
        }


def compare(parent: Bundle, variant: Bundle, seen: Seen) -> Comparison:
    """Measure a variant on the validation films, at the operating points of both; subjects are the units."""
    rows = seen.rows("val")
    before, after = Predictor(parent).network, Predictor(variant).network
    said = [
        decide(bundle.calibration, network.answer_all(seen.pixels, index=rows.index).logits)
        for bundle, network in ((parent, before), (variant, after))
    ]
    (label, p), (label_after, p_after) = said
    films = seen.pixels[rows.index]
    return Comparison(
        n=len(rows),
        bytes=(variant.path / MODEL).stat().st_size,
        bytes_before=(parent.path / MODEL).stat().st_size,
        times={batch: time_pairs(before, after, films, batch) for batch in BATCHES},
        auc_difference=Metric(*area_difference(rows.labels, p_after, p, rows.subjects)),
        agreement=float((label == label_after).mean()),
    )


def time_pairs(before: Network, after: Network, films: npt.NDArray[np.uint8], batch: int) -> Timed:
    """Time two networks on the same films, in turns, each on the one thread that calls it.

    What is counted is that thread's CPU time: on a machine with nothing else to do it is the latency, and elsewhere it
    is what the latency would be.
    """
    chosen = np.ascontiguousarray(films[np.arange(batch) % len(films)])
    for network in (before, after):
        network.answer(chosen)
    pairs = np.array([[_ms(network, chosen) for network in (before, after)] for _ in range(REPEATS[batch])])
    low, middle, high = np.quantile(pairs[:, 0] / pairs[:, 1], (0.1, 0.5, 0.9))
    first, second = np.median(pairs, axis=0)
    return Timed(float(first), float(second), Metric(float(middle), float(low), float(high)))


def _ms(network: Network, films: npt.NDArray[np.uint8]) -> float:
    begun = time.thread_time()
    network.answer(films)
    return (time.thread_time() - begun) * 1000


def _ratio(speedup: Metric) -> str:
    return f"{speedup.value:.2f} times ({speedup.low:.2f} to {speedup.high:.2f})"
