"""The seats: the next version is made ready beside the one that serves; what cannot be loaded never sits down."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.support.bundles import tiny_bundle, tiny_films

from rounds.core.errors import DamagedBundle, UnknownId
from rounds.core.specs import ServeSpec
from rounds.runtime.predictor import Predictor
from rounds.runtime.scores import scores
from rounds.runtime.verdict import verdicts
from rounds.serve.swap import Seats


def test_a_version_that_has_taken_its_seat_answers_as_its_bundle_does(tmp_path: Path) -> None:
    bundle, films = tiny_bundle(tmp_path), tiny_films(5)
    seats = Seats(ServeSpec())
    with pytest.raises(KeyError):
        seats["v1"]
    seated = seats.take("v1", bundle.path, bundle.digest)
    assert seats["v1"] is seated
    answered = seated.answer(films)
    outputs = Predictor(bundle).answer(films)
    np.testing.assert_array_equal(answered.outputs.logits, outputs.logits)
    np.testing.assert_array_equal(answered.scores, scores(bundle, films, outputs))
    expected = verdicts(bundle, outputs, answered.scores)
    np.testing.assert_array_equal(answered.verdicts.probabilities, expected.probabilities)
    assert list(answered.verdicts.reason) == list(expected.reason)


def test_a_batch_that_began_with_the_old_version_ends_with_it(tmp_path: Path) -> None:
    old, new, films = tiny_bundle(tmp_path), tiny_bundle(tmp_path, bias=8.0), tiny_films(5)
    seats = Seats(ServeSpec())
    before = seats.take("v1", old.path, old.digest)
    after = seats.take("v2", new.path, new.digest)
    assert (before, after) == (seats["v1"], seats["v2"])
    seats.leave("v1")
    np.testing.assert_array_equal(before.answer(films).outputs.logits, Predictor(old).answer(films).logits)
    np.testing.assert_array_equal(after.answer(films).outputs.logits, Predictor(new).answer(films).logits)


def test_a_bundle_with_one_flipped_bit_is_refused_by_the_name_of_its_file_and_the_old_one_stays(tmp_path: Path) -> None:
    old, new = tiny_bundle(tmp_path), tiny_bundle(tmp_path, bias=1.0)
    seats = Seats(ServeSpec())
    seated = seats.take("v1", old.path, old.digest)
    model = new.path / "model.onnx"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    with pytest.raises(DamagedBundle, match=r"is damaged: model\.onnx"):
        seats.take("v2", new.path, new.digest)
    assert seats["v1"] is seated


def test_another_whole_bundle_in_the_place_of_the_promoted_one_is_refused(tmp_path: Path) -> None:
    promoted, other = tiny_bundle(tmp_path), tiny_bundle(tmp_path, bias=1.0)
    place = tmp_path / "copied"
    shutil.copytree(other.path, place)
    with pytest.raises(DamagedBundle, match=rf"version v2 is not the bundle at .*\n.*expected {promoted.digest}; got"):
        Seats(ServeSpec()).take("v2", place, promoted.digest)


def test_a_bundle_that_is_gone_is_an_unknown_id(tmp_path: Path) -> None:
    with pytest.raises(UnknownId, match="no bundle at"):
        Seats(ServeSpec()).take("v1", tmp_path / "nothing", "0" * 64)
