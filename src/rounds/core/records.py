"""The records that flow through the house; stages speak to each other in these and in nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

from rounds.core.ids import canonical, digest, plain
from rounds.core.specs import ImagingSpec, TrainSpec


@dataclass(frozen=True)
class DatasetVersion:
    """Labelled images, split and sealed under the digest of their content; `path` holds dataset.json,
    manifest.parquet and packs."""

    name: str
    digest: str
    path: Path
    classes: tuple[str, ...]
    splits: Mapping[str, int]
    subjects_known: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """What `prepare` did with a source: the data set, how many files it took, each refused file with its reason,
    films by split and class, and each film that was repaired (file, what was done, why)."""

    dataset: DatasetVersion
    taken: int
    refused: tuple[tuple[str, str], ...] = ()
    leaks: tuple[tuple[str, str], ...] = ()
    by_class: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    repaired: tuple[tuple[str, str, str], ...] = ()

    def public(self) -> dict[str, Any]:
        told = {key: plain(value) for key, value in vars(self.dataset).items() if key != "path"}
        told |= {key: plain(getattr(self, key)) for key in ("taken", "leaks", "by_class")}
        told["refused"] = [{"file": file, "reason": reason} for file, reason in self.refused]
        told["repaired"] = [{"file": file, "did": did, "why": why} for file, did, why in self.repaired]
        return told


@dataclass(frozen=True)
class TrainedRun:
    """A finished training run; `checkpoint` holds the weights of the network that `spec` describes."""

    run: str
    checkpoint: Path
    spec: TrainSpec
    classes: tuple[str, ...]
    data: str
    config: str
    code: str
    seconds: float
    cpu_seconds: float
    val: Mapping[str, float]


@dataclass(frozen=True)
class Parents:
    """Where a bundle comes from: digests of data set and configuration, MLflow run, code revision, and the bundle it
    varies."""

    data: str
    run: str
    config: str
    code: str
    bundle: str | None = None


@dataclass(frozen=True)
class Calibration:
    """How logits become a decision: softmax(logits / temperature + bias), the positive class from `threshold` up (two
    classes only),
    and per class the conformal threshold on 1 - p (a class is in the set when 1 - p <= its threshold)."""

    temperature: float
    bias: tuple[float, ...]
    threshold: float | None
    conformal: tuple[float, ...]
    alpha: float


@dataclass(frozen=True)
class Scoring:
    """How a film becomes monitoring scores: their names, the bin edges (63 a score, from training films), the
    training embeddings' frame."""

    names: tuple[str, ...]
    edges: tuple[tuple[float, ...], ...]
    centre: tuple[float, ...]
    axes: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Bundle:
    """The one thing that moves between training and production: a verified folder named by its content."""

    digest: str
    path: Path
    classes: tuple[str, ...]
    imaging: ImagingSpec
    calibration: Calibration
    scoring: Scoring
    parents: Parents
    variant: str = "trained"


@dataclass(frozen=True)
class Metric:
    """A measured value with the bounds of its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class EvalReport:
    """A bundle measured, as served, on one split of a data set; `curves` holds what is drawn, and `robustness` and
    `comparison` where they were asked for."""

    bundle: str
    data: str
    split: str
    n: int
    classes: tuple[str, ...]
    threshold: float | None
    metrics: Mapping[str, Metric]
    confusion: tuple[tuple[int, ...], ...]
    curves: Mapping[str, Any] = field(default_factory=dict)
    slices: tuple[Mapping[str, Any], ...] = ()

    def public(self) -> dict[str, Any]:
        told = {key: plain(value) for key, value in vars(self).items() if key != "curves"}
        return told | {key: plain(self.curves[key]) for key in ("robustness", "comparison") if key in self.curves}


@dataclass(frozen=True)
class PredictRequest:
    """One film to be answered, with the caller's own number and whose film it is (a keyed pseudonym by now); `id` is
    what the prediction will be called, where that is settled already."""

    data: bytes
    request: str
    reference: str | None = None
    subject: str | None = None
    id: str | None = None


@dataclass(frozen=True)
class Prediction:
    """One answer: calibrated probabilities, the conformal set, and whether a person should look."""

    id: str
    label: str
    probabilities: Mapping[str, float]
    set: tuple[str, ...]
    refer: bool
    reason: str | None
    ood: float
    version: str
    bundle: str
    ms: float
    reference: str | None = None
    path: str | None = None

    def public(self) -> dict[str, Any]:
        answer: dict[str, Any] = {"id": self.id, "class": self.label, "probabilities": dict(self.probabilities)}
        answer |= {"set": list(self.set), "refer": self.refer, "reason": self.reason, "ood": self.ood}
        answer |= {"version": self.version, "bundle": self.bundle, "ms": self.ms}
        named = {"reference": self.reference, "path": self.path}
        return answer | {key: value for key, value in named.items() if value is not None}


@dataclass(frozen=True)
class Captured:
    """One answered film as it is kept: `scores` in the order of the bundle's scoring names, `image` the digest of its
    bytes,
    `audited` drawn before outcome and alarm. `seq` is 0 until the store has given the row its place in the total
    order; `size` is the image's, in bytes, 0 where nobody said; `gone` says that the image was dropped since."""

    prediction: str
    at: datetime
    bundle: str
    version: str
    image: str
    label: str
    probabilities: tuple[float, ...]
    logits: tuple[float, ...]
    scores: tuple[float, ...]
    audited: bool
    ms: float
    reference: str | None = None
    subject: str | None = None
    seq: int = 0
    size: int = 0
    gone: bool = False


@dataclass(frozen=True)
class Shadowed:
    """What a version that only looks on would have answered to a captured film; `scores` as in `Captured`, `ms` its
    own milliseconds, `seq` its place among all of these once it is kept."""

    prediction: str
    version: str
    bundle: str
    label: str
    probabilities: tuple[float, ...]
    scores: tuple[float, ...]
    ms: float
    seq: int = 0


@dataclass(frozen=True)
class Label:
    """What a film truly showed, by prediction id or by the caller's reference."""

    label: str
    prediction: str | None = None
    reference: str | None = None
    by: str = ""
    at: datetime | None = None


@dataclass(frozen=True)
class Moved:
    """One thing that moved, and by how much (in units of the reference's spread; for the class mix, of share)."""

    what: str
    size: float


@dataclass(frozen=True)
class Finding:
    """What the watch says after n images; `log_e` is the log of the evidence, `limit` the log of what raises the
    alarm."""

    id: str
    kind: str
    alarm: bool
    n: int
    at: datetime
    alpha: float
    log_e: float
    limit: float
    moved: tuple[Moved, ...] = ()
    harm: str = "unknown"
    since: int | None = None
    controlled: bool = True
    why: str = ""

    def public(self) -> dict[str, Any]:
        answer: dict[str, Any] = plain(self)
        return answer


class Act(Enum):
    """What the policy may decide."""

    HOLD = "hold"
    ASK_LABELS = "ask_labels"
    RECALIBRATE = "recalibrate"
    RETRAIN = "retrain"
    PROMOTE = "promote"
    REFUSE = "refuse"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True)
class Decision:
    """What is to be done and why; `evidence` names the findings, bundles and gate records it rests on."""

    act: Act
    why: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


# what the first event of a log is chained to
GENESIS = "0" * 64


@dataclass(frozen=True)
class Event:
    """One line of the append-only log; `hash` covers every other field and the hash before it."""

    seq: int
    id: str
    at: datetime
    kind: str
    who: str
    why: str
    evidence: Mapping[str, Any]
    prev: str
    hash: str

    def sealed(self) -> str:
        """The hash that this event must bear: SHA-256 of the canonical JSON of every other field."""
        return digest(canonical({key: value for key, value in vars(self).items() if key != "hash"}))


@dataclass(frozen=True)
class Check:
    """One question the gate asked; `passed` says whether `value` keeps to `limit`."""

    name: str
    value: float | None
    limit: float | None
    passed: bool
    note: str = ""


@dataclass(frozen=True)
class GateReport:
    """The gate's whole answer for one candidate, the `candidate`-th since the test set was sealed."""

    bundle: str
    against: str | None
    passed: bool
    checks: tuple[Check, ...]
    candidate: int
    alpha: float
    power: float | None = None
    labels_lacking: int = 0


@dataclass(frozen=True)
class ModelVersion:
    """A registered bundle under the number people use."""

    version: str
    bundle: str
    at: datetime
    gate: str | None = None
    provisional: bool = False


@dataclass(frozen=True)
class Cost:
    """What one piece of work took: wall and CPU seconds, bytes written; `kind` is train, export, evaluate, retrain
    and so on."""

    kind: str
    subject: str
    at: datetime
    seconds: float
    cpu_seconds: float
    bytes: int = 0
