"""Models that were trained elsewhere become bundles: what their graphs hide is found, or named as absent."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from tests.support.bundles import tiny_films
from torch import Tensor, nn

from rounds.core.errors import CallerFault, UnknownId
from rounds.core.specs import ImagingSpec, ModelSpec
from rounds.export.bring import Brought, bring
from rounds.export.elsewhere import open_model
from rounds.export.inlet import AS_IS, Normalisation
from rounds.nets.names import build
from rounds.nets.weights import save_weights
from rounds.runtime.predictor import Network

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's of what it still exports and traces
SIZE = 32
GRAY = ImagingSpec(size=SIZE)
COLOUR = ImagingSpec(size=SIZE, channels=3)
IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = Normalisation((0.5,), (0.25,))


class Residual(nn.Module):
    """A small ResNet as people write them, with a linear head over the average."""

    def __init__(self, channels: int = 3, classes: int = 2, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.one, self.two = nn.Conv2d(width, width, 3, 1, 1), nn.Conv2d(width, width, 3, 1, 1)
        self.norm, self.pool, self.fc = nn.BatchNorm2d(width), nn.AdaptiveAvgPool2d(1), nn.Linear(width, classes)

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return torch.relu(x + self.norm(self.two(torch.relu(self.one(x)))))

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.fc(torch.flatten(self.pool(self.features(x)), 1))
        return answer


class Ended(nn.Module):
    """A network with something after its scores."""

    def __init__(self, body: nn.Module, end: nn.Module) -> None:
        super().__init__()
        self.body, self.end = body, end

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.end(self.body(x))
        return answer


class Perceptron(nn.Module):
    """No convolution, no map: two linear layers."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, 12), nn.ReLU(), nn.Linear(12, classes))

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.layers(x)
        return answer


def lively(net: nn.Module, seed: int = 0) -> nn.Module:
    """The network in evaluation mode, its weights drawn so that scores differ from film to film."""
    torch.manual_seed(seed)
    for tensor in net.parameters():
        torch.nn.init.normal_(tensor, 0.0, 0.3)
    return net.eval()


def exported(net: nn.Module, imaging: ImagingSpec, *, dynamic: bool = True, batch: int = 1) -> onnx.ModelProto:
    """The model as its owner exports it: float input, normalised outside."""
    sink, shape = io.BytesIO(), (batch, imaging.channels, imaging.size, imaging.size)
    axes = {"pixel_values": {0: "batch"}} if dynamic else None
    torch.onnx.export(
        net, (torch.zeros(shape),), cast("Any", sink), input_names=["pixel_values"], dynamo=False, dynamic_axes=axes
    )
    return onnx.load_from_string(sink.getvalue())


def films(imaging: ImagingSpec, n: int = 24) -> npt.NDArray[np.uint8]:
    return tiny_films(n, size=imaging.size, channels=imaging.channels, seed=3)


def normal(pixels: npt.NDArray[np.uint8], said: Normalisation) -> Tensor:
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (said.mean, said.std))
    return (torch.from_numpy(pixels).float() / said.scale - mean) / std


def brought(net: nn.Module, imaging: ImagingSpec, said: Normalisation, classes: int = 2, **how: Any) -> Brought:
    return bring(exported(net, imaging, **how), "model.onnx", imaging, classes, said, films(imaging))


def test_a_residual_network_answers_from_pixels_with_embedding_and_activation_map() -> None:
    net = cast("Residual", lively(Residual(classes=3)))
    made = brought(net, COLOUR, IMAGENET, classes=3)
    pixels = films(COLOUR, 5)
    said = Network(made.model).answer(pixels)
    with torch.no_grad():
        maps = net.features(normal(pixels, IMAGENET))
        logits, pooled = net(normal(pixels, IMAGENET)), maps.mean((2, 3))
        drawn = torch.einsum("kd,ndhw->nkhw", net.fc.weight, maps)
    assert (made.absent, made.notes) == ({}, ())
    assert said.logits == pytest.approx(logits.numpy(), abs=1e-4)
    assert said.embedding == pytest.approx(pooled.numpy(), abs=1e-4)
    assert said.activation == pytest.approx(drawn.numpy(), abs=1e-4)


def test_softmax_at_the_end_is_taken_off() -> None:
    net = lively(Residual())
    made = brought(Ended(net, nn.Softmax(dim=1)).eval(), COLOUR, IMAGENET)
    pixels = films(COLOUR, 5)
    assert made.notes == ("the softmax at its end was taken off",)
    assert made.absent == {}
    assert Network(made.model).answer(pixels).logits == pytest.approx(
        net(normal(pixels, IMAGENET)).detach().numpy(), abs=1e-4
    )


@pytest.mark.parametrize("end", [nn.Sigmoid(), nn.Identity()])
def test_a_single_score_is_that_of_the_last_class(end: nn.Module) -> None:
    net = lively(Residual(channels=1, classes=1))
    made = brought(Ended(net, end).eval(), GRAY, HALF)
    pixels = films(GRAY, 5)
    said = Network(made.model).answer(pixels)
    score = net(normal(pixels, HALF)).detach().numpy()[:, 0]
    assert made.notes[-1] == "its single score is that of the last class"
    assert made.absent == {}
    assert said.logits[:, 1] - said.logits[:, 0] == pytest.approx(score, abs=1e-4)
    assert (said.embedding.shape, said.activation.shape[:2]) == ((5, 8), (5, 2))


class Shares(nn.Module):
    """Probabilities that no softmax made."""

    def forward(self, x: Tensor) -> Tensor:
        return x.exp() / x.exp().sum(1, keepdim=True)


def test_other_probabilities_become_logits_by_their_logarithm() -> None:
    net = Ended(lively(Residual()), Shares()).eval()
    made = brought(net, COLOUR, IMAGENET)
    pixels = films(COLOUR, 5)
    said = Network(made.model).answer(pixels)
    assert made.notes == ("its output is a probability: logits are the logarithm",)
    assert np.exp(said.logits) == pytest.approx(net(normal(pixels, IMAGENET)).detach().numpy(), abs=1e-5)


def test_what_is_not_there_is_named_as_absent() -> None:
    net = lively(Perceptron(2))
    made = brought(net, GRAY, HALF)
    network = Network(made.model)
    said = network.answer(films(GRAY, 5))
    assert made.absent == {"activation": "no average over a feature map was found before the last linear layer"}
    assert network.absent == ("activation",)
    assert (said.embedding.shape, said.activation.shape) == ((5, 12), (5, 0, 0, 0))


def test_a_fixed_batch_size_is_freed() -> None:
    class Viewing(Residual):
        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.fc(self.pool(self.features(x)).reshape(x.shape[0], 8))
            return answer

    net = lively(Viewing())
    made = brought(net, COLOUR, IMAGENET, dynamic=False, batch=2)
    pixels = films(COLOUR, 7)
    assert made.notes == ("its fixed batch size was freed",)
    assert Network(made.model).answer(pixels).logits == pytest.approx(
        net(normal(pixels, IMAGENET)).detach().numpy(), abs=1e-4
    )


def test_a_model_with_colours_last_and_its_own_normalisation() -> None:
    class ColoursLast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = Residual()

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.body(x.permute(0, 3, 1, 2) / 127.5 - 1)
            return answer

    net, sink = lively(ColoursLast()), io.BytesIO()
    torch.onnx.export(
        net, (torch.zeros(1, SIZE, SIZE, 3),), cast("Any", sink), dynamo=False, input_names=["x"],
        dynamic_axes={"x": {0: "n"}},
    )  # fmt: skip
    made = bring(onnx.load_from_string(sink.getvalue()), "model.onnx", COLOUR, 2, AS_IS, films(COLOUR))
    pixels = films(COLOUR, 3)
    wanted = net(torch.from_numpy(pixels).float().permute(0, 2, 3, 1)).detach().numpy()
    assert Network(made.model).answer(pixels).logits == pytest.approx(wanted, abs=1e-4)
    assert made.absent == {}


def test_everything_that_keeps_a_model_out_is_named_at_once() -> None:
    nodes = [helper.make_node("Mystery", ["x"], ["y"], domain="lab"), helper.make_node("Identity", ["y"], ["scores"])]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 64, 64])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 1000])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 99), helper.make_opsetid("lab", 1)])
    with pytest.raises(CallerFault, match=r"strange.onnx cannot be brought along") as caught:
        bring(model, "strange.onnx", COLOUR, 2, None, films(COLOUR))
    assert [(fault.what, fault.got) for fault in caught.value.faults] == [
        ("operators of its own", "lab::Mystery"),
        ("an opset that is not known here", "99"),
        ("the input has another shape", "x float (1, 3, 64, 64)"),
        ("another number of classes", "scores float (1, 1000)"),
        ("how pixels become its input is not said", ""),
    ]


def test_a_network_that_mixes_the_films_of_a_batch_is_refused() -> None:
    class Mixing(Residual):
        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = super().forward(x)
            return scores - scores.mean(0)

    with pytest.raises(CallerFault, match="a film's answer depends on its batch"):
        brought(lively(Mixing()), COLOUR, IMAGENET)


def test_checkpoints_of_the_house_and_plain_state_dicts_find_their_network(tmp_path: Path) -> None:
    net = build(ModelSpec("small"), channels=1, classes=2, size=SIZE).eval()
    save_weights(tmp_path / "ours.pt", net, ModelSpec("small"), channels=1, classes=2, size=SIZE)
    torch.save({"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, tmp_path / "plain.pt")
    pixels = films(GRAY, 4)
    for name in ("ours.pt", "plain.pt"):
        model, ours = open_model(tmp_path / name, GRAY, 2)
        made = bring(model, name, GRAY, 2, AS_IS, films(GRAY))
        assert (ours, made.absent) == (True, {})
        assert Network(made.model).answer(pixels).logits == pytest.approx(
            net(torch.from_numpy(pixels))[0].detach().numpy(), abs=1e-4
        )


@pytest.mark.parametrize("name", ["script.pt", pytest.param("program.pt2", marks=pytest.mark.slow)])
def test_torchscript_and_torch_export_are_taken(name: str, tmp_path: Path) -> None:
    net = lively(Residual())
    example = torch.zeros(2, 3, SIZE, SIZE)
    if name == "script.pt":
        torch.jit.save(torch.jit.trace(net, example), tmp_path / name)
    else:
        program = torch.export.export(net, (example,), dynamic_shapes=({0: torch.export.Dim("n", min=1, max=4096)},))
        torch.export.save(program, tmp_path / name)
    pixels = films(COLOUR, 4)
    model, ours = open_model(tmp_path / name, COLOUR, 2)
    made = bring(model, name, COLOUR, 2, IMAGENET, films(COLOUR))
    wanted = net(normal(pixels, IMAGENET)).detach().numpy()
    assert (ours, made.absent) == (False, {})
    assert Network(made.model).answer(pixels).logits == pytest.approx(wanted, abs=1e-4)


def test_what_would_run_code_is_broken_or_missing_is_refused(tmp_path: Path) -> None:
    torch.save(lively(Residual()), tmp_path / "pickled.pt")
    (tmp_path / "broken.onnx").write_bytes(b"\x00not a model")
    (tmp_path / "broken.pt").write_bytes(b"PK\x03\x04 cut off")
    torch.save({"w": torch.zeros(3)}, tmp_path / "other.pt")
    said = {}
    for name in ("pickled.pt", "broken.onnx", "broken.pt", "other.pt"):
        with pytest.raises(CallerFault, match=f"{name} cannot be brought along") as caught:
            open_model(tmp_path / name, COLOUR, 2)
        said[name] = caught.value.faults[0].expected
    assert said["pickled.pt"] == "tensors alone: what else is in it would run code as it is loaded"
    assert said["broken.onnx"] == "an ONNX model, whole"
    assert said["other.pt"].startswith("the tensors of small, resnet18")
    with pytest.raises(UnknownId, match="there is no model"):
        open_model(tmp_path / "none.onnx", COLOUR, 2)
