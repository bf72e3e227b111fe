"""A model that was trained elsewhere, from its file to its answers over HTTP and the watch over them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import torch
from tests.support.bundles import tiny_films, tiny_truth
from tests.support.commands import rounds
from tests.support.datasets import tiny_dataset
from tests.support.server import server
from tests.support.workspace import opened
from torch import Tensor, nn

from rounds.imaging.fit import encode_png
from rounds.loop import intake

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's, of the exporter that people use
SIZE = 28
SAID = ("--data", "tiny", "--imaging", f"size={SIZE},channels=1", "--mean", "0.5", "--std", "0.25")


class Plain(nn.Module):
    """A network as people train them: convolutions, an average, a linear layer, softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.fc = nn.Linear(8, 2)

    def scores(self, x: Tensor) -> Tensor:
        answer: Tensor = self.fc(self.body(x).mean((2, 3)))
        return answer

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(x).softmax(1)


class Hidden(Plain):
    """The same scores from no linear layer that a graph shows."""

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x).mean((2, 3))[:, None] * self.fc.weight).sum(2) + self.fc.bias


def normal(films: Any) -> Tensor:
    return (torch.from_numpy(films).float() / 255 - 0.5) / 0.25


@pytest.fixture(scope="module")
def trained() -> dict[str, Tensor]:
    torch.manual_seed(0)
    net, films = Plain(), tiny_films(400, size=SIZE, seed=11)
    x, y = normal(films), torch.from_numpy(tiny_truth(films))
    steps = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(80):
        steps.zero_grad()
        nn.functional.cross_entropy(net.scores(x), y).backward()
        steps.step()
    return net.state_dict()


def onnx_file(net: Plain, weights: dict[str, Tensor], path: Path) -> Plain:
    net.load_state_dict(weights)
    sink = io.BytesIO()
    torch.onnx.export(
        net.eval(), (torch.zeros(1, 1, SIZE, SIZE),), cast("Any", sink), input_names=["input"], dynamo=False,
        dynamic_axes={"input": {0: "batch"}},
    )  # fmt: skip
    path.write_bytes(sink.getvalue())
    return net


@pytest.fixture
def home(tmp_path: Path) -> Path:
    with opened(tmp_path / "home") as ports:
        intake.enter(ports, tiny_dataset(ports.datasets, size=SIZE), why="a test")
    return tmp_path / "home"


def test_a_model_of_elsewhere_is_measured_gated_served_and_watched(
    home: Path, trained: dict[str, Tensor], tmp_path: Path
) -> None:
    net = onnx_file(Plain(), trained, tmp_path / "theirs.onnx")
    made = rounds(home, "import", tmp_path / "theirs.onnx", *SAID, "--json")
    assert made.code == 0, made.err
    assert made.json["classes"] == ["normal", "opacity"]
    assert (made.json["absent"], made.json["notes"]) == ({}, ["the softmax at its end was taken off"])
    assert made.json["val"]["auc"] > 0.9
    assert (
        rounds(home, "evaluate", made.json["bundle"], "--data", "tiny", "--json").json["metrics"]["auc"]["value"] > 0.9
    )
    assert rounds(home, "promote", "latest", "--json").json["passed"]
    films = tiny_films(6, size=SIZE, seed=12)
    with server(home) as served, httpx.Client(base_url=served.url, timeout=10) as client:
        answers = [client.post("/v1/predict", content=encode_png(film)).json() for film in films]
    with torch.no_grad():
        wanted = net.scores(normal(films)).diff(dim=1)[:, 0]
    order = sorted(range(6), key=lambda i: answers[i]["probabilities"]["opacity"])
    assert order == sorted(range(6), key=lambda i: float(wanted[i]))
    trace = rounds(home, "trace", answers[0]["id"], "--json").json
    assert (trace["variant"], trace["run"][:9]) == ("imported", "imported-")


def test_without_embedding_it_is_served_and_watched_by_what_is_left(
    home: Path, trained: dict[str, Tensor], tmp_path: Path
) -> None:
    onnx_file(Hidden(), trained, tmp_path / "hidden.onnx")
    made = rounds(home, "import", tmp_path / "hidden.onnx", *SAID, "--classes", "normal,opacity", "--json").json
    assert set(made["absent"]) == {"embedding", "activation"}
    facts = json.loads((Path(made["path"]) / "bundle.json").read_text())
    assert facts["scoring"]["names"][0] == "logit"
    assert "embedding" not in facts["scoring"]["names"]
    assert rounds(home, "promote", "latest", "--json").json["passed"]
    films = tmp_path / "films"
    films.mkdir()
    for i, film in enumerate(tiny_films(5, size=SIZE, seed=13)):
        (films / f"{i}.png").write_bytes(encode_png(film))
    said = rounds(home, "predict", films, "--json").json["predictions"]
    assert [answer["ood"] for answer in said] == [1.0] * 5
    with server(home) as served, httpx.Client(base_url=served.url, timeout=10) as client:
        for film in tiny_films(40, size=SIZE, seed=14):
            assert client.post("/v1/predict", content=encode_png(film)).status_code == 200
    watched = rounds(home, "watch", "--once", "--json")
    assert watched.code == 0, watched.err
    assert watched.json["decision"] == "hold"


def test_what_cannot_be_imported_is_refused_with_every_reason(
    home: Path, trained: dict[str, Tensor], tmp_path: Path
) -> None:
    onnx_file(Plain(), trained, tmp_path / "theirs.onnx")
    said = rounds(
        home, "import", tmp_path / "theirs.onnx", "--data", "tiny", "--imaging", "size=32,channels=3", "--json"
    )
    assert said.code == 2
    assert [fault["what"] for fault in said.json["error"]["faults"]] == [
        "the input has another shape",
        "how pixels become its input is not said",
    ]
    both = rounds(home, "import", tmp_path / "theirs.onnx", *SAID, "--normalised-inside", "--json")
    assert (both.code, both.message) == (2, "the normalisation cannot be read")
    words = rounds(home, "import", tmp_path / "theirs.onnx", *SAID[:4], "--mean", "half", "--std", "x", "--json")
    assert [fault["where"] for fault in words.json["error"]["faults"]] == ["--mean", "--std"]
    others = rounds(home, "import", tmp_path / "theirs.onnx", *SAID, "--classes", "cat,dog", "--json")
    assert (others.code, others.message) == (2, "tiny cannot calibrate a bundle")


def test_a_model_that_was_brought_along_cannot_be_pruned_and_says_why(
    home: Path, trained: dict[str, Tensor], tmp_path: Path
) -> None:
    onnx_file(Plain(), trained, tmp_path / "theirs.onnx")
    rounds(home, "import", tmp_path / "theirs.onnx", *SAID)
    said = rounds(home, "optimize", "latest", "tracking=none", "--json")
    assert said.code == 0, said.err
    int8, pruned = said.json["variants"]
    assert (pruned["kept"], pruned["bundle"]) == (False, None)
    assert pruned["why"].startswith("no run")
    assert (int8["bundle"] is not None) == int8["kept"]
    assert 0.9 < int8["agreement"] <= 1
    assert set(int8["auc_difference"]) == {"value", "low", "high"}
