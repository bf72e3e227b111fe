"""Networks by name."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches

from rounds.core.errors import BadOverride, Fault
from rounds.core.specs import ModelSpec
from rounds.nets.network import Network
from rounds.nets.small import Small

NETWORKS: dict[str, Callable[..., Network]] = {"small": Small}
SIZES = (28, 224)
CHANNELS = (1, 3)


def build(spec: ModelSpec, *, channels: int, classes: int, size: int) -> Network:
    """The untrained network that the spec names, for uint8 (n, channels, size, size) and this many classes.

    Raises BadOverride with every unknown name or impossible number at once.
    """
    faults = []
    if spec.name not in NETWORKS:
        near = get_close_matches(spec.name, NETWORKS, n=1, cutoff=0.0)[0]
        faults.append(Fault("no such network", "model.name", ", ".join(NETWORKS), repr(spec.name), f"try {near!r}"))
    if not 0 < spec.width <= 16:
        faults.append(Fault("the width is impossible", "model.width", "over 0, at most 16", str(spec.width)))
    if not SIZES[0] <= size <= SIZES[1]:
        faults.append(Fault("the image size is impossible", "imaging.size", f"{SIZES[0]} to {SIZES[1]}", str(size)))
    if channels not in CHANNELS:
        faults.append(Fault("the number of channels is impossible", "imaging.channels", "1 or 3", str(channels)))
    if classes < 2:
        faults.append(Fault("a classifier needs classes", "classes", "2 or more", str(classes)))
    if faults:
        raise BadOverride("this network cannot be built", faults)
    return NETWORKS[spec.name](channels=channels, classes=classes, size=size, width=spec.width)
