"""Weights of a network in one file that says which network they belong to; loading it runs no code."""

from __future__ import annotations

import io
import pickle
import zipfile
import zlib
from dataclasses import asdict, replace
from pathlib import Path

import torch

from rounds.core.errors import Fault, UnknownId, WorldFault
from rounds.core.ids import write_whole
from rounds.core.specs import ModelSpec
from rounds.nets.names import build
from rounds.nets.network import Network


def save_weights(path: Path, net: Network, spec: ModelSpec, *, channels: int, classes: int, size: int) -> None:
    """Write the network's tensors and what `build` needs, whole or not at all."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    shape = {"channels": channels, "classes": classes, "size": size}
    buffer = io.BytesIO()
    torch.save({"model": asdict(spec), "shape": shape, "tensors": tensors}, buffer)
    write_whole(path, buffer.getvalue())


def load_weights(path: Path) -> Network:
    """The network of a weights file, on the CPU, in evaluation mode.

    Raises UnknownId where there is no file, WorldFault where it is not whole.
    """
    try:
        # torch's reader fails in too many ways to name on a file that is not its own, and checks no sums.
        with zipfile.ZipFile(path) as archive:
            if (broken := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"bad checksum of {broken}")
        saved = torch.load(path, map_location="cpu", weights_only=True)
        # Its own weights follow: the pretrained ones that it started from are not fetched again.
        net = build(replace(ModelSpec(**saved["model"]), pretrained=False), **saved["shape"])
        net.load_state_dict(saved["tensors"])
    except FileNotFoundError as error:
        fault = Fault("no such checkpoint", str(path), next="train again, or name a finished run")
        raise UnknownId("there are no weights", [fault]) from error
    except (zipfile.BadZipFile, zlib.error, RuntimeError, KeyError, TypeError, pickle.UnpicklingError) as error:
        fault = Fault("the checkpoint is not whole", str(path), "a file written by save_weights", next="train again")
        raise WorldFault("the weights cannot be read", [fault]) from error
    return net.eval()
