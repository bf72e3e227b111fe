"""The ranges that numbers must keep to, by the names they have in overrides."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rounds.core.errors import Fault

_INF = math.inf
_SHARE, _POSITIVE, _NOT_NEGATIVE = (0.0, 1.0), (1e-12, _INF), (0.0, _INF)
# Lowest and highest value that make sense, both allowed.
BOUNDS: Mapping[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),
    "imaging.size": (28, 512),
    "imaging.channels": (1, 3),
    "model.width": (0.125, 16),
    "augment.translate": (0, 0.5),
    "augment.rotate": (0, 180),
    "augment.scale": (0, 1),
    "augment.brightness": _SHARE,
    "augment.contrast": (0, 10),
    "augment.gamma": (0, 10),
    "augment.noise": _SHARE,
    "augment.blur": (0, 10),
    "augment.cutout": _SHARE,
    "augment.mixup": (0, 0.5),
    "train.epochs": (1, 100_000),
    "train.batch": (2, 1_000_000),
    "train.lr": _POSITIVE,
    "train.weight_decay": _NOT_NEGATIVE,
    "train.label_smoothing": (0, 0.999),
    "train.ema": (0, 0.999999),
    "train.threads": (0, 4096),
    "train.backbone_lr": _NOT_NEGATIVE,
    "launcher.processes": (1, 4096),
    "export.alpha": (1e-6, 0.999),
    "export.score_films": (64, _INF),
    "export.parity": _POSITIVE,
    "export.operating.min_sensitivity": (0.01, 0.9999),
    "export.operating.cost_false_negative": _POSITIVE,
    "export.operating.cost_false_positive": _POSITIVE,
    "export.operating.prevalence": (0, 0.9999),
    "gate.alpha": (1e-9, 0.5),
    "gate.margin": (1e-6, 0.999),
    "gate.min_power": _SHARE,
    "gate.min_auc": _SHARE,
    "gate.min_recall": _SHARE,
    "gate.max_ece": _SHARE,
    "gate.max_auc_drop": _SHARE,
    "gate.max_latency_ratio": _POSITIVE,
    "monitor.alpha": (1e-9, 0.5),
    "monitor.horizon": (1, _INF),
    "monitor.seed": (0, _INF),
    "monitor.mix_low": _SHARE,
    "monitor.mix_high": _SHARE,
    "monitor.audit_share": _SHARE,
    "monitor.alpha_risk": (1e-9, 0.5),
    "monitor.alpha_reference": (1e-9, 0.5),
    "monitor.risk_horizon": (1, _INF),
    "monitor.risk_tolerance": _SHARE,
    "monitor.maturity_s": _NOT_NEGATIVE,
    "monitor.keep_one_in": (1, _INF),
    "policy.labels_to_recalibrate": (1, _INF),
    "policy.labels_to_prove": (1, _INF),
    "policy.labels_to_retrain": (1, _INF),
    "policy.accuracy_floor_drop": _SHARE,
    "policy.cooldown_s": _NOT_NEGATIVE,
    "policy.retrains_per_period": (0, _INF),
    "policy.period_s": _POSITIVE,
    "capture.days": _NOT_NEGATIVE,
    "capture.bytes": _NOT_NEGATIVE,
    "serve.port": (0, 65535),
    "serve.max_batch": (1, 4096),
    "serve.max_wait_ms": (0, 10_000),
    "serve.max_queue": (1, _INF),
    "serve.deadline_s": _POSITIVE,
    "serve.poll_s": _POSITIVE,
    "serve.threads": (1, 4096),
    "serve.workers": (0, 4096),
    "serve.journal_bytes": (1, _INF),
    "serve.rate": _NOT_NEGATIVE,
    "serve.limits.max_bytes": (1, _INF),
    "serve.limits.max_pixels": (1, _INF),
}
# Texts of which only these mean something.
WORDS: Mapping[str, tuple[str, ...]] = {
    "train.precision": ("32-true", "bf16-mixed", "16-mixed"),
    "launcher.name": ("local", "torchrun", "ray"),
}


def outside(settings: Mapping[str, Any], prefix: str = "") -> list[Fault]:
    """A fault for every number that leaves its range, NaN leaves every one, and for every word that is not known."""
    faults: list[Fault] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            faults += outside(value, f"{prefix}{name}.")
        elif value not in WORDS.get(prefix + name, (value,)):
            faults.append(Fault("no such choice", prefix + name, " or ".join(WORDS[prefix + name]), str(value)))
        elif prefix + name in BOUNDS:
            low, high = BOUNDS[prefix + name]
            if not low <= value <= high:
                wanted = f"{low:g} to {high:g}" if high < _INF else f"at least {low:g}"
                faults.append(Fault("the value is outside its range", f"{prefix}{name}", wanted, str(value)))
    return faults
