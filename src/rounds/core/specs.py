"""What a user may set, as frozen dataclasses: the single source for Hydra, the HTTP API and the records."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

SPLITS = ("train", "val", "calibration", "test")


class Fit(Enum):
    """How an image that is not square becomes square."""

    STRETCH = "stretch"
    PAD = "pad"


@dataclass(frozen=True)
class Limits:
    """What an image may cost before anything is allocated for it."""

    max_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 64_000_000


@dataclass(frozen=True)
class ImagingSpec:
    """From bytes to the network's input: uint8 (channels, size, size); one description for training, measuring,
    serving and watching."""

    size: int = 28
    channels: int = 1
    fit: Fit = Fit.STRETCH


@dataclass(frozen=True)
class DataSpec:
    """How a source, and `more` of them, become a data set; the fractions are cut from `train`, by groups, where a split
    is missing or too small. `columns` are pairs role=column: of a table's path, label, subject, split, or of an
    attribute; `classes` name the labels 0, 1, ... in order, or rename them as old=new; `labels` is the table of a DICOM
    tree, or tag:KEYWORD, and `burned_in` takes its films that declare text in their pixels. A file may be as large as
    the most pixels of 16 bits."""

    source: str = ""
    name: str = ""
    subject: str | None = None
    val: float = 0.1
    calibration: float = 0.15
    test: float = 0.15
    min_per_class: int = 50
    seed: int = 0
    limits: Limits = field(default_factory=lambda: Limits(max_bytes=2 * Limits.max_pixels))
    more: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    root: str | None = None
    classes: tuple[str, ...] = ()
    labels: str | None = None
    shared_subjects: bool = False
    repair: bool = False
    burned_in: bool = False


@dataclass(frozen=True)
class ModelSpec:
    """A network by name, with its width as a multiple of its usual channels, from random weights or `pretrained`
    ones."""

    name: str = "small"
    width: float = 1.0
    pretrained: bool = False


@dataclass(frozen=True)
class AugmentSpec:
    """Ranges of the random changes made to a batch; 0 switches one off."""

    flip: bool = True
    translate: float = 0.07
    rotate: float = 0.0
    scale: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    gamma: float = 0.0
    noise: float = 0.0
    blur: float = 0.0
    cutout: float = 0.0
    mixup: float = 0.0


@dataclass(frozen=True)
class LoopSpec:
    """The optimisation: group `train` of the configuration; `batch` is the most, smaller where images are few;
    `backbone_lr` is a factor on the learning rate of everything but the head; `precision` as Lightning names it."""

    epochs: int = 10
    batch: int = 128
    lr: float = 0.01
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    balance: bool = False
    ema: float = 0.0
    threads: int = 0
    progress: bool = True
    backbone_lr: float = 1.0
    precision: str = "32-true"
    compile: bool = False
    profile: bool = False


@dataclass(frozen=True)
class LaunchSpec:
    """Where the training runs: `name` local (in this process), torchrun or ray; `processes` share each batch."""

    name: str = "local"
    processes: int = 1


@dataclass(frozen=True)
class TrainSpec:
    """One training run: what `rounds train` resolves its overrides to."""

    data: str = "latest"
    seed: int = 0
    imaging: ImagingSpec = field(default_factory=ImagingSpec)
    model: ModelSpec = field(default_factory=ModelSpec)
    augment: AugmentSpec = field(default_factory=AugmentSpec)
    train: LoopSpec = field(default_factory=LoopSpec)
    launcher: LaunchSpec = field(default_factory=LaunchSpec)


@dataclass(frozen=True)
class Axis:
    """One setting that a study varies: from `low` to `high`, on a log scale or in whole numbers, or among `options`."""

    name: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrackingSpec:
    """Where runs are entered: `name` is mlflow, wandb, both or none; `entity` (a team) and `mode` (online, offline; by
    default W&B's own settings say) are W&B's."""

    name: str = "mlflow"
    project: str = "rounds"
    entity: str = ""
    mode: str = ""


class Policy(Enum):
    """What the operating threshold is chosen for."""

    YOUDEN, SENSITIVITY, COST = "youden", "sensitivity", "cost"


@dataclass(frozen=True)
class OperatingSpec:
    """How the operating threshold of two classes is chosen on `val`: by `policy`; `robust` counts the same films under
    stress (other scanners) as much; `prevalence` of the positive class for the cost table, 0 being that of `val`."""

    policy: Policy = Policy.YOUDEN
    min_sensitivity: float = 0.95
    cost_false_negative: float = 1.0
    cost_false_positive: float = 1.0
    prevalence: float = 0.0
    robust: bool = True


@dataclass(frozen=True)
class ExportSpec:
    """How weights become a bundle: conformal error per class, films behind the monitoring scores, parity tolerance on
    logits, and the operating threshold."""

    alpha: float = 0.1
    flip_average: bool = True
    score_films: int = 4000
    parity: float = 1e-4
    operating: OperatingSpec = field(default_factory=OperatingSpec)


@dataclass(frozen=True)
class GateSpec:
    """What a bundle must show before it may serve; `min_recall` 0 asks each class for more than guessing would give,
    1/k."""

    alpha: float = 0.05
    margin: float = 0.03
    min_power: float = 0.8
    min_auc: float = 0.8
    min_recall: float = 0.0
    max_ece: float = 0.15
    max_auc_drop: float = 0.02
    max_latency_ratio: float = 3.0


@dataclass(frozen=True)
class MonitorSpec:
    """Error budgets and horizons of the watch; half of `alpha` for scores where `mix_low` and `mix_high` declare a band
    (0 to 1 is none), else all of it."""

    alpha: float = 0.01
    horizon: int = 10_000
    seed: int = 0
    mix_low: float = 0.0
    mix_high: float = 1.0
    audit_share: float = 0.2
    alpha_risk: float = 0.01
    alpha_reference: float = 0.05
    risk_horizon: int = 10_000
    risk_tolerance: float = 0.05
    maturity_s: float = 7 * 86_400.0
    keep_one_in: int = 1


@dataclass(frozen=True)
class PolicySpec:
    """When the loop may act: labels and quiet time that a cure or a retrain needs, and how many retrains a period
    allows."""

    labels_to_recalibrate: int = 60
    labels_to_prove: int = 60
    labels_to_retrain: int = 200
    accuracy_floor_drop: float = 0.05
    cooldown_s: float = 86_400.0
    retrains_per_period: int = 4
    period_s: float = 30 * 86_400.0
    retrain_overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class CaptureSpec:
    """How long captured images stay: `days` after an image was last asked for, and within `bytes` in all; 0 is for ever
    and without bound. Rows stay, and say that their image is gone."""

    days: float = 0.0
    bytes: int = 0


@dataclass(frozen=True)
class ServeSpec:
    """The HTTP server: where it listens, its worker processes (0: a thread of the server's own), the bounds of its
    queue and batches, how many bytes of answers may wait on disk for a store that is away, and `rate`, the requests a
    second that each key may send (0 is no bound). `log_requests` logs every request, not only those that fail;
    `traces` is the address of an OpenTelemetry collector (OTLP/HTTP; empty sends none)."""

    host: str = "127.0.0.1"
    port: int = 8000
    max_batch: int = 32
    max_wait_ms: float = 1.0
    max_queue: int = 512
    deadline_s: float = 10.0
    poll_s: float = 0.1
    threads: int = 1
    workers: int = 1
    journal_bytes: int = 4 * 1024**3
    rate: float = 0.0
    log_requests: bool = False
    traces: str = ""
    limits: Limits = field(default_factory=Limits)
