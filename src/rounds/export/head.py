"""Where a classifier's answer comes from: the linear layer behind its scores, and the feature map behind that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

SOFT = ("Softmax", "LogSoftmax", "Sigmoid")
SHAPING = ("Identity", "Dropout", "Cast", "Flatten", "Reshape", "Squeeze")
POOLS = ("GlobalAveragePool", "ReduceMean", "AveragePool")

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Head:
    """The last linear layer: its weights float32 (k, d), the tensor that it reads, and the feature map that this tensor
    is the spatial average of, if one is."""

    weights: Floats
    reads: str
    features: str | None


class Graph:
    """A graph, read backwards."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._makers: dict[str, onnx.NodeProto] = {name: node for node in model.graph.node for name in node.output}
        for node in model.graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = node.attribute[0].t

    def made_by(self, tensor: str, *passing: str) -> onnx.NodeProto | None:
        """The node that makes a tensor, or the first before it that is none of `passing`; an Add is passed where one of
        its terms is constant."""
        node = self._makers.get(tensor)
        while node is not None and node.op_type in passing:
            varying = [name for name in node.input if name and name not in self.constants]
            if node.op_type == "Add" and len(varying) != 1:
                return node
            tensor = varying[0]
            node = self._makers.get(tensor)
        return node

    def array(self, tensor: str) -> Floats | None:
        """The values of a constant."""
        held = self.constants.get(tensor)
        return None if held is None else np.asarray(numpy_helper.to_array(held), np.float32)

    def head(self, scores: str) -> Head | None:
        """The head behind the scores; None where they come of something else than one linear layer."""
        node = self.made_by(scores, *SHAPING, "Add")
        pooled_after = node if node is not None and node.op_type in POOLS else None
        if pooled_after is not None:
            node = self.made_by(pooled_after.input[0], "Identity", "Add")
        if node is None:
            return None
        weights = self._weights(node)
        if weights is None or (pooled_after is not None and node.op_type != "Conv"):
            return None
        if pooled_after is not None:
            return Head(weights, node.input[0], node.input[0])
        pool = self.made_by(node.input[0], *SHAPING)
        averaged = pool is not None and pool.op_type in POOLS
        return Head(weights, node.input[0], pool.input[0] if pool is not None and averaged else None)

    def _weights(self, node: onnx.NodeProto) -> Floats | None:
        held = self.array(node.input[1]) if len(node.input) > 1 else None
        if held is None:
            return None
        set_to = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "Gemm" and not ("transA" in set_to and set_to["transA"].i):
            scale = set_to["alpha"].f if "alpha" in set_to else 1.0
            return scale * (held if "transB" in set_to and set_to["transB"].i else held.T)
        if node.op_type == "MatMul" and held.ndim == 2:
            return held.T
        if node.op_type == "Conv" and held.shape[2:] == (1, 1):
            return held[:, :, 0, 0]
        return None
