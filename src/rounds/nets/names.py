"""Networks by name."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches

from rounds.core.errors import BadOverride, Fault
from rounds.core.specs import ModelSpec
from rounds.nets.efficientnet import efficientnet_lite0, load_imagenet
from rounds.nets.network import Network
from rounds.nets.resnet import resnet18, resnet50
from rounds.nets.small import Small
from rounds.nets.timm import PREFIX, from_timm

NETWORKS: dict[str, Callable[..., Network]] = {
    "small": Small,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "efficientnet_lite0": efficientnet_lite0,
}
PRETRAINED: dict[str, Callable[[Network], None]] = {"efficientnet_lite0": load_imagenet}
SCALABLE = ("small", "resnet18", "resnet50")
SIZES = (28, 512)
CHANNELS = (1, 3)


def build(spec: ModelSpec, *, channels: int, classes: int, size: int) -> Network:
    """The network that the spec names, for uint8 (n, channels, size, size) and this many classes; its weights drawn
    from torch's global generator, or pretrained.

    Raises BadOverride with every unknown name or impossible number at once, and where an extra is not installed or does
    not work; WorldFault where pretrained weights are not the known ones.
    """
    outside = spec.name.startswith(PREFIX)
    faults = [] if outside else _of_the_house(spec)
    if not 0 < spec.width <= 16:
        faults.append(Fault("the width is impossible", "model.width", "over 0, at most 16", str(spec.width)))
    elif spec.width != 1 and spec.name not in SCALABLE and (outside or spec.name in NETWORKS):
        faults.append(Fault("the width of this network is fixed", "model.width", "1", str(spec.width)))
    if not SIZES[0] <= size <= SIZES[1]:
        faults.append(Fault("the image size is impossible", "imaging.size", f"{SIZES[0]} to {SIZES[1]}", str(size)))
    if channels not in CHANNELS:
        faults.append(Fault("the number of channels is impossible", "imaging.channels", "1 or 3", str(channels)))
    if classes < 2:
        faults.append(Fault("a classifier needs classes", "classes", "2 or more", str(classes)))
    if faults:
        raise BadOverride("this network cannot be built", faults)
    if outside:
        return from_timm(spec.name, channels=channels, classes=classes, size=size, pretrained=spec.pretrained)
    net = NETWORKS[spec.name](channels=channels, classes=classes, size=size, width=spec.width)
    if spec.pretrained:
        PRETRAINED[spec.name](net)
    return net


def _of_the_house(spec: ModelSpec) -> list[Fault]:
    known = ", ".join(NETWORKS)
    if spec.name not in NETWORKS:
        near = get_close_matches(spec.name, NETWORKS, n=1, cutoff=0.0)[0]
        return [Fault("no such network", "model.name", f"{known}, or {PREFIX}NAME", repr(spec.name), f"try {near!r}")]
    if spec.pretrained and spec.name not in PRETRAINED:
        able = ", ".join(PRETRAINED)
        return [Fault("no pretrained weights for this network", "model.pretrained", able, repr(spec.name))]
    return []
