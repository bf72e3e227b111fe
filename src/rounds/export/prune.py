"""A narrower network cut from a trained one: whole channels go, those whose filters are smallest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rounds.core.errors import BadOverride, Fault
from rounds.core.specs import ModelSpec
from rounds.nets.names import build
from rounds.nets.network import Network
from rounds.nets.resnet import Basic, ResNet
from rounds.nets.small import Small


@dataclass(frozen=True)
class Layer:
    """A convolution and the batch norm after it, by their names; `reads` and `writes` name channel groups, which are
    cut alike wherever they appear. None is what is not cut."""

    conv: str
    norm: str
    reads: str | None
    writes: str


def narrowed(net: Network, spec: ModelSpec, keep: float, *, channels: int, size: int) -> tuple[Network, ModelSpec]:
    """The network of the same name at `keep` (0..1) times the width, with the weights of the channels that matter most,
    and its spec.

    A channel matters by the length of the filters that write it, times what their batch norms multiply them with (Li et
    al. 2017, arXiv 1608.08710, folded), summed over all layers that write it. It needs some epochs of training before
    it answers well. Raises BadOverride for a network that is neither `small` nor a ResNet of basic blocks, and where
    nothing would become narrower.
    """
    layers, last = _layers(net, spec.name)
    fewer = replace(spec, width=spec.width * keep, pretrained=False)
    head = net.get_submodule("head")
    assert isinstance(head, nn.Linear)
    small = build(fewer, channels=channels, classes=head.out_features, size=size)
    kept = _kept(net, small, layers)
    if all(
        len(places) == len(net.get_parameter(f"{layer.norm}.weight"))
        for layer in layers
        for places in [kept[layer.writes]]
    ):
        fault = Fault("no channel can go", spec.name, "a network wider than 8 channels a layer", f"width {spec.width}")
        raise BadOverride(f"{spec.name} cannot be pruned further", [fault])
    tensors = dict(net.state_dict())
    for layer in layers:
        out = kept[layer.writes]
        weight = tensors[f"{layer.conv}.weight"][out]
        tensors[f"{layer.conv}.weight"] = weight if layer.reads is None else weight[:, kept[layer.reads]]
        for part in ("weight", "bias", "running_mean", "running_var"):
            tensors[f"{layer.norm}.{part}"] = tensors[f"{layer.norm}.{part}"][out]
    tensors["head.weight"] = tensors["head.weight"][:, kept[last]]
    small.load_state_dict(tensors)
    return small.eval(), fewer


def _kept(net: Network, small: Network, layers: list[Layer]) -> dict[str, Tensor]:
    """The places of the channels that stay in each group, ascending, as many as the narrower network has."""
    weights: dict[str, Tensor] = {}
    sizes: dict[str, int] = {}
    for layer in layers:
        norm = net.get_submodule(layer.norm)
        assert isinstance(norm, nn.BatchNorm2d)
        length = net.get_parameter(f"{layer.conv}.weight").detach().flatten(1).norm(dim=1)
        assert norm.running_var is not None
        folded = length * norm.weight.detach().abs() / (norm.running_var + norm.eps).sqrt()
        weights[layer.writes] = weights.get(layer.writes, torch.zeros_like(folded)) + folded
        sizes[layer.writes] = len(small.get_parameter(f"{layer.norm}.weight"))
    return {name: weight.topk(sizes[name]).indices.sort().values for name, weight in weights.items()}


def _layers(net: Network, name: str) -> tuple[list[Layer], str]:
    """The layers in order, and the group that the head reads."""
    if isinstance(net, Small):
        found = list(_small(net))
    elif isinstance(net, ResNet) and all(isinstance(block, Basic) for block in net.blocks):
        found = list(_resnet(net))
    else:
        fault = Fault("pruning knows no such network", name, "small or resnet18", type(net).__name__)
        raise BadOverride(f"{name} cannot be pruned", [fault])
    return found, found[-1].writes


def _small(net: Small) -> Iterator[Layer]:
    reads = None
    for i in range(len(net.groups)):
        place = f"groups.{i}"
        yield Layer(f"{place}.conv1", f"{place}.norm1", reads, f"{place}.inner")
        yield Layer(f"{place}.conv2", f"{place}.norm2", f"{place}.inner", place)
        reads = place


def _resnet(net: ResNet) -> Iterator[Layer]:
    """A stage's blocks add to one stream of channels; each has inner channels of its own."""
    yield Layer("stem.0", "stem.1", None, stream := "stem")
    for i, block in enumerate(net.blocks):
        place, reads = f"blocks.{i}", stream
        yield Layer(f"{place}.conv1", f"{place}.norm1", reads, f"{place}.inner")
        if isinstance(block.shortcut, nn.Sequential):
            stream = place
            yield Layer(f"{place}.shortcut.0", f"{place}.shortcut.1", reads, stream)
        yield Layer(f"{place}.conv2", f"{place}.norm2", f"{place}.inner", stream)
