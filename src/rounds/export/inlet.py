"""The way into a model that was trained elsewhere: what it asks for, and pixels made into that inside its graph."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rounds.core.errors import Fault
from rounds.core.specs import ImagingSpec

KINDS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.UINT8)
# ONNX's own operators and those that ONNX Runtime has of its own.
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc")
OPSETS = (7, onnx.defs.onnx_opset_version())
PREFIX = "brought/"
BATCH = "n"


@dataclass(frozen=True)
class Normalisation:
    """What a model expects of its input: (pixels / scale - mean) / std, one number or one a channel."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 255.0


# The model does it itself, and takes 0..255.
AS_IS = Normalisation(scale=1.0)


def misfits(
    model: onnx.ModelProto, where: str, imaging: ImagingSpec, classes: int, normalisation: Normalisation | None
) -> list[Fault]:
    """Everything about a model that keeps it out, as far as its graph says so without being run."""
    functions = {(function.domain, function.name) for function in model.functions}
    custom = sorted(
        {
            f"{n.domain}::{n.op_type}"
            for n in model.graph.node
            if n.domain not in DOMAINS and (n.domain, n.op_type) not in functions
        }
    )
    version = max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=0)
    faults = []
    if custom:
        faults.append(
            Fault("operators of its own", where, "those of ONNX", ", ".join(custom), "export it without them")
        )
    if not OPSETS[0] <= version <= OPSETS[1]:
        expected = f"{OPSETS[0]} to {OPSETS[1]}"
        faults.append(
            Fault("an opset that is not known here", where, expected, str(version), "export it with opset 17")
        )
    faults += _inputs(model, where, imaging)
    faults += _outputs(model, where, classes)
    return faults + _numbers(normalisation, imaging.channels)


def inlet(model: onnx.ModelProto, imaging: ImagingSpec, normalisation: Normalisation) -> onnx.ModelProto:
    """The model with uint8 (n, c, size, size) named `image` as its input, its own names prefixed; traces of where it
    was exported are left out."""
    body = onnx.compose.add_prefix(model, PREFIX)
    for node in body.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    old = _images(body)[0]
    name, kind, layout = old.name, old.type.tensor_type.elem_type, _layout(old, imaging)
    nodes, last = [helper.make_node("Cast", ["image"], ["rounds/pixels"], to=TensorProto.FLOAT)], "rounds/pixels"
    if normalisation != AS_IS:
        mean, std = (np.array(values, np.float64) for values in (normalisation.mean, normalisation.std))
        for kind_of, values in (("Mul", 1 / (normalisation.scale * std)), ("Add", -mean / std)):
            tensor = values.astype(np.float32).reshape(1, -1, 1, 1)
            body.graph.initializer.append(numpy_helper.from_array(tensor, f"rounds/{kind_of}/by"))
            nodes.append(helper.make_node(kind_of, [last, f"rounds/{kind_of}/by"], [last := f"rounds/{kind_of}"]))
    if layout == "nhwc":
        nodes.append(helper.make_node("Transpose", [last], [last := "rounds/laid"], perm=[0, 2, 3, 1]))
    nodes.append(helper.make_node("Cast", [last], [name], to=kind))
    nodes += list(body.graph.node)
    del body.graph.node[:]
    body.graph.node.extend(nodes)
    shape: list[str | int | None] = [BATCH, imaging.channels, imaging.size, imaging.size]
    body.graph.input.remove(old)
    body.graph.input.insert(0, helper.make_tensor_value_info("image", TensorProto.UINT8, shape))
    return body


def freed(body: onnx.ModelProto, inputs: Iterable[onnx.ValueInfoProto]) -> bool:
    """Let the graph take any number of images; True where the model was made for one number of them.

    Shapes that it states are forgotten, and reshapes to that number of rows reshape to as many as there are.
    """
    del body.graph.value_info[:]
    sizes = [info.type.tensor_type.shape.dim for info in inputs]
    fixed = next((dims[0].dim_value for dims in sizes if len(dims) == 4), 0)
    for output in body.graph.output:
        output.type.tensor_type.ClearField("shape")
    if not fixed:
        return False
    held = {tensor.name: tensor for tensor in body.graph.initializer}
    made = {node.output[0]: node.attribute[0].t for node in body.graph.node if node.op_type == "Constant"}
    for node in body.graph.node:
        tensor = (held | made).get(node.input[1]) if node.op_type == "Reshape" else None
        if tensor is None:
            continue
        shape = numpy_helper.to_array(tensor).copy()
        if len(shape) > 1 and shape[0] == fixed:
            # 0 stands for what the input has there
            shape[0] = 0 if -1 in shape[1:] else -1
            tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))
    return True


def _images(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    weights = {tensor.name for tensor in model.graph.initializer}
    return [info for info in model.graph.input if info.name not in weights]


def _inputs(model: onnx.ModelProto, where: str, imaging: ImagingSpec) -> list[Fault]:
    found, c, size = _images(model), imaging.channels, imaging.size
    wanted = f"one input, float (n, {c}, {size}, {size}) or (n, {size}, {size}, {c})"
    got = ", ".join(f"{info.name} {_said(info)}" for info in found) or "none"
    if len(found) != 1:
        return [Fault("not one input", where, wanted, got, "export the image classifier alone")]
    kind = found[0].type.tensor_type.elem_type
    faults = [] if kind in KINDS else [Fault("an input of another kind", where, wanted, got, "export it in float32")]
    if _layout(found[0], imaging) is None:
        faults.append(Fault("the input has another shape", where, wanted, got, "say it: --imaging size=N,channels=C"))
    return faults


def _outputs(model: onnx.ModelProto, where: str, classes: int) -> list[Fault]:
    """A fault where every output says its shape, and none is over so many classes."""
    shapes = [_dims(output) for output in model.graph.output]
    sizes = {classes, 1} if classes == 2 else {classes}
    if not shapes or any(dims is None or not dims or dims[-1] is None for dims in shapes):
        return []
    if any(sizes & set(dims[1:] or (1,)) for dims in shapes if dims):
        return []
    got = ", ".join(f"{output.name} {_said(output)}" for output in model.graph.output)
    return [Fault("another number of classes", where, f"(n, {classes})", got, "take a data set with the same classes")]


def _numbers(normalisation: Normalisation | None, channels: int) -> list[Fault]:
    if normalisation is None:
        choices = "--mean and --std, or --scale, or --normalised-inside"
        return [Fault("how pixels become its input is not said", expected=choices, next="see how it was trained")]
    faults = [
        Fault(f"one {name} a channel", f"--{name}", f"1 or {channels} numbers", str(len(values)))
        for name, values in (("mean", normalisation.mean), ("std", normalisation.std))
        if len(values) not in (1, channels)
    ]
    if not all(value > 0 for value in (*normalisation.std, normalisation.scale)):
        faults.append(Fault("pixels are divided by it", "--std, --scale", "more than 0", str(normalisation)))
    return faults


def _layout(info: onnx.ValueInfoProto, imaging: ImagingSpec) -> str | None:
    dims, c, size = _dims(info), imaging.channels, imaging.size
    for name, wanted in (("nchw", (c, size, size)), ("nhwc", (size, size, c))):
        if dims is None or (len(dims) == 4 and all(d in (None, w) for d, w in zip(dims[1:], wanted, strict=True))):
            return name
    return None


def _dims(info: onnx.ValueInfoProto) -> tuple[int | None, ...] | None:
    """The sizes that a tensor states, None where one is open; None where it states nothing."""
    kind = info.type.tensor_type
    return tuple(dim.dim_value or None for dim in kind.shape.dim) if kind.HasField("shape") else None


def _said(info: onnx.ValueInfoProto) -> str:
    kind = TensorProto.DataType.Name(info.type.tensor_type.elem_type).lower()
    return f"{kind} ({', '.join('n' if dim is None else str(dim) for dim in _dims(info) or ('...',))})"
