"""Files of models that were trained elsewhere, opened without running code of theirs."""

from __future__ import annotations

import io
import logging
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # its types are a package apart
from torch import Tensor, nn

from rounds.core.errors import CallerFault, Fault, UnknownId
from rounds.core.specs import ImagingSpec, ModelSpec
from rounds.export.graph import OPSET, to_onnx
from rounds.nets.names import NETWORKS, build
from rounds.nets.network import Network

_TORCH = "save its state_dict alone, or export it to ONNX"


def open_model(path: Path, imaging: ImagingSpec, classes: int) -> tuple[onnx.ModelProto, bool]:
    """The ONNX graph of a model file, and whether it is a network of the house, which normalises by itself.

    Takes .onnx; a checkpoint of one of the house's networks (what `rounds train` writes, or a plain state dict, also
    under `state_dict` or `model`); TorchScript; and what torch.export saved (.pt2). Raises UnknownId where there is no
    file, CallerFault where it is none of these, or would run code of its own when loaded.
    """
    if not path.is_file():
        raise UnknownId("there is no model", [Fault("no such file", str(path), "an .onnx, .pt or .pt2 file")])
    if path.suffix == ".onnx":
        return _onnx(path), False
    names = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else []
    if path.suffix == ".pt2" or any(name.endswith("archive_format") for name in names):
        return _exported(path), False
    if any(name.endswith("constants.pkl") for name in names):
        return _scripted(path, imaging), False
    net = _network(_tensors(path), imaging, classes, path)
    return onnx.load_from_string(to_onnx(net, channels=imaging.channels, size=imaging.size)), True


def _onnx(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path)
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError) as error:
        raise _unreadable(path, "an ONNX model, whole", error) from error
    if not model.graph.node:
        raise _unreadable(path, "an ONNX model, whole", "a graph without nodes")
    return model


def _tensors(path: Path) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
    """The state dict of a checkpoint, and what else stands beside it."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, zipfile.BadZipFile) as error:
        needs = "Unsupported" in str(error) or "WeightsUnpickler" in str(error)
        wanted = "tensors alone: what else is in it would run code as it is loaded" if needs else "a checkpoint, whole"
        raise _unreadable(path, wanted, error) from error
    held = saved if isinstance(saved, Mapping) else {}
    found = next((held[key] for key in ("tensors", "state_dict", "model") if isinstance(held.get(key), Mapping)), held)
    tensors = {str(name): tensor for name, tensor in found.items() if isinstance(tensor, Tensor)}
    if not tensors:
        raise _unreadable(path, "a state dict", type(saved).__name__)
    return tensors, held


def _network(
    saved: tuple[Mapping[str, Tensor], Mapping[str, Any]], imaging: ImagingSpec, classes: int, path: Path
) -> Network:
    """The network of the house that the tensors fit."""
    tensors, held = saved
    tensors = {name.removeprefix("module.").removeprefix("net."): tensor for name, tensor in tensors.items()}
    said = held.get("model")
    # A file of `save_weights` says which network it is of; a plain state dict has to be tried.
    known = [ModelSpec(**said)] if isinstance(said, Mapping) and "width" in said else [ModelSpec(n) for n in NETWORKS]
    closest = ""
    for spec in known:
        try:
            net = build(ModelSpec(spec.name, spec.width), channels=imaging.channels, classes=classes, size=imaging.size)
            net.load_state_dict(dict(tensors))
            return net.eval()
        except RuntimeError as error:
            lines = str(error).splitlines()
            closest = closest if closest and len(closest) <= len("; ".join(lines[1:])) else "; ".join(lines[1:])
    expected = f"the tensors of {', '.join(s.name for s in known)} for {classes} classes, {imaging.channels} channels"
    fault = Fault("tensors of another network", str(path), expected, closest.strip()[:300], "export it to ONNX")
    raise CallerFault(f"{path.name} cannot be brought along", [fault])


def _scripted(path: Path, imaging: ImagingSpec) -> onnx.ModelProto:
    example = torch.zeros((2, imaging.channels, imaging.size, imaging.size))
    sink = io.BytesIO()
    try:
        with _quiet():
            net: nn.Module = torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call]
            torch.onnx.export(
                net, (example,), cast("Any", sink), input_names=["input"], dynamo=False, opset_version=OPSET,
                dynamic_axes={"input": {0: "n"}},
            )  # fmt: skip
    except (RuntimeError, torch.onnx.OnnxExporterError) as error:
        raise _unreadable(path, f"TorchScript of one image input {tuple(example.shape)}", error) from error
    return onnx.load_from_string(sink.getvalue())


def _exported(path: Path) -> onnx.ModelProto:
    try:
        with _quiet():
            program = torch.onnx.export(torch.export.load(path), dynamo=True, opset_version=18)
    except (RuntimeError, ValueError, KeyError, OSError, pickle.UnpicklingError, torch.onnx.OnnxExporterError) as error:
        raise _unreadable(path, "what torch.export.save wrote", error) from error
    assert program is not None
    return program.model_proto


def _unreadable(path: Path, expected: str, error: object) -> CallerFault:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    fault = Fault("this file cannot be taken", str(path), expected, lines[0][:200], _TORCH)
    return CallerFault(f"{path.name} cannot be brought along", [fault])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' advice to themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
