"""Recipes by name: what each sets beside the defaults, and what it measures.

Times are wall seconds of the training loop on two cores; AUC is that of the last epoch on the `val` split.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EXPERIMENTS: Mapping[str, Mapping[str, Any]] = {
    "quick": {"train": {"epochs": 3}},
    "phantom": {"imaging": {"size": 32}, "train": {"epochs": 8}},
    "pneumonia28": {"train": {"epochs": 8}},
    "films224": {"imaging": {"size": 64}, "train": {"epochs": 8}},
}
