"""The predictor answers as the graph says, whatever the batch, and refuses what is not its kind."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.support.bundles import FEATURES, tiny_bundle, tiny_films, tiny_model, tiny_truth

from rounds.core.errors import DamagedBundle, OurFault
from rounds.core.records import Bundle
from rounds.runtime.predictor import Network, Predictor


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundles"))


def test_the_outputs_have_the_shapes_of_the_contract(made: Bundle) -> None:
    said = Predictor(made).answer(tiny_films(5))
    shapes = {"logits": (5, 2), "embedding": (5, FEATURES), "activation": (5, 2, 4, 4)}
    for name, shape in shapes.items():
        assert getattr(said, name).shape == shape
        assert getattr(said, name).dtype == np.float32
    assert len(said) == 5


def test_the_tiny_network_tells_its_films_apart() -> None:
    films = tiny_films(2000, seed=10, channels=3)
    for k in (2, 3):
        network = Network(tiny_model(classes=k, channels=3))
        assert (network.answer_all(films).logits.argmax(1) == tiny_truth(films, k)).mean() > 0.75
    worse = Network(tiny_model(bias=2.0, channels=3)).answer_all(films).logits.argmax(1)
    assert (worse == tiny_truth(films)).mean() < 0.9


def test_a_film_gets_the_same_answer_alone_and_in_any_batch(made: Bundle) -> None:
    films = tiny_films(40)
    predictor = Predictor(made)
    whole = predictor.answer(films)
    single = np.concatenate([predictor.answer(films[i : i + 1]).logits for i in range(40)])
    assert np.abs(whole.logits - single).max() < 1e-5
    many = predictor.network.answer_all(films, batch=7)
    assert np.abs(whole.logits - many.logits).max() < 1e-5
    assert many.activation.shape == (40, 0, 0, 0)
    chosen = np.array([3, 39, 3])
    assert np.array_equal(
        predictor.network.answer_all(films, index=chosen).logits, predictor.answer(films[chosen]).logits
    )


def test_threads_may_share_a_predictor(made: Bundle) -> None:
    predictor, films = Predictor(made, threads=2), tiny_films(64)
    expected = predictor.answer(films).logits
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda _: predictor.answer(films).logits, range(40))
        assert all(np.array_equal(answer, expected) for answer in answers)


@pytest.mark.parametrize(
    ("pixels", "got"),
    [
        (np.zeros((2, 1, 16, 16), np.float32), r"float32 \(2, 1, 16, 16\)"),
        (np.zeros((2, 3, 16, 16), np.uint8), r"uint8 \(2, 3, 16, 16\)"),
        (np.zeros((0, 1, 16, 16), np.uint8), r"uint8 \(0, 1, 16, 16\)"),
    ],
)
def test_pixels_of_another_kind_are_our_fault(made: Bundle, pixels: np.ndarray, got: str) -> None:
    with pytest.raises(OurFault, match=rf"wrong pixels; expected uint8 \(n >= 1, 1, 16, 16\); got {got}"):
        Predictor(made).answer(pixels)


def test_an_answer_that_is_no_number_is_never_given() -> None:
    with pytest.raises(OurFault, match="the network answers with NaN or infinity"):
        Network(tiny_model(bias=float("nan"))).answer(tiny_films(2))


def _other(dtype: int, outputs: tuple[str, ...]) -> bytes:
    nodes = [helper.make_node("Identity", ["image"], [name]) for name in outputs]
    shape = ["n", 1, 16, 16]
    graph = helper.make_graph(
        nodes,
        "other",
        [helper.make_tensor_value_info("image", dtype, shape)],
        [helper.make_tensor_value_info(name, dtype, shape) for name in outputs],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def test_a_graph_with_other_inputs_and_outputs_is_refused_both_named() -> None:
    with pytest.raises(DamagedBundle, match=r"model.onnx is not a network of this house") as caught:
        Network(_other(TensorProto.FLOAT, ("logits", "features")))
    assert [fault.what for fault in caught.value.faults] == ["wrong inputs", "wrong outputs"]


def test_a_graph_whose_weights_lie_in_another_file_is_refused(tmp_path: Path) -> None:
    model = onnx.load_from_string(tiny_model())
    tensor = model.graph.initializer[1]
    array = numpy_helper.to_array(tensor)
    (tmp_path / "weights.bin").write_bytes(array.tobytes())
    onnx.external_data_helper.set_external_data(tensor, str(tmp_path / "weights.bin"))
    tensor.ClearField("raw_data")
    with pytest.raises(DamagedBundle, match="no network that runs here"):
        Network(model.SerializeToString())
