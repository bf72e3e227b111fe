"""A film over HTTP: the answer of the contract, the same as in process, captured before it was given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from tests.support.server import Served, server
from tests.support.workspace import films_as_png, opened, promote

from rounds.capture import journal
from rounds.core.records import Bundle
from rounds.imaging.fit import to_pixels
from rounds.runtime.predictor import Predictor
from rounds.runtime.scores import scores
from rounds.runtime.verdict import verdicts


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Bundle]:
    home = tmp_path_factory.mktemp("web") / "home"
    return home, promote(home)


@pytest.fixture(scope="module")
def served(workspace: tuple[Path, Bundle]) -> Iterator[Served]:
    with server(workspace[0]) as running:
        yield running


def test_a_raw_film_is_answered_as_the_contract_says_and_as_the_bundle_does(
    served: Served, workspace: tuple[Path, Bundle]
) -> None:
    _, bundle = workspace
    film = films_as_png(3)[2]
    answer = httpx.post(
        f"{served.url}/v1/predict?reference=film-42&subject=patient-7",
        content=film,
        headers={"content-type": "image/png", "x-request-id": "caller-1"},
    )
    assert (answer.status_code, answer.headers["x-request-id"]) == (200, "caller-1")
    found = answer.json()
    pixels = to_pixels(film, bundle.imaging)[None]
    outputs = Predictor(bundle).answer(pixels)
    expected = verdicts(bundle, outputs, scores(bundle, pixels, outputs))
    assert found.pop("id").startswith("p_")
    assert found.pop("ms") > 0
    assert found == {
        "class": bundle.classes[expected.label[0]],
        "probabilities": dict(zip(bundle.classes, expected.probabilities[0].tolist(), strict=True)),
        "set": [name for name, member in zip(bundle.classes, expected.members[0], strict=True) if member],
        "refer": bool(expected.refer[0]),
        "reason": expected.reason[0],
        "ood": float(expected.ood[0]),
        "version": "v1",
        "bundle": bundle.digest,
        "reference": "film-42",
    }


def test_an_answer_is_in_the_store_with_its_film_scores_logits_and_pseudonym(
    served: Served, workspace: tuple[Path, Bundle]
) -> None:
    home, bundle = workspace
    film = films_as_png(4)[3]
    url = f"{served.url}/v1/predict?reference=film-43&subject=patient-8"
    answer = httpx.post(url, content=film, headers={"content-type": "image/png"}).json()
    pixels = to_pixels(film, bundle.imaging)[None]
    outputs = Predictor(bundle).answer(pixels)
    with opened(home) as ports:
        journal.settle(ports)
        row = ports.captures.find(answer["id"])
        assert row is not None
        assert ports.blobs.get(row.image) == film
    assert (row.version, row.bundle, row.label, row.reference) == ("v1", bundle.digest, answer["class"], "film-43")
    assert row.probabilities == tuple(answer["probabilities"].values())
    assert row.logits == pytest.approx(outputs.logits[0].tolist())
    np.testing.assert_allclose(row.scores, scores(bundle, pixels, outputs)[0], rtol=1e-6)
    assert row.ms == answer["ms"]
    assert row.subject is not None
    assert "patient-8" not in row.subject


@pytest.mark.parametrize("field", ["file", "files"])
def test_one_file_of_a_form_is_answered_with_one_prediction(served: Served, field: str) -> None:
    film = films_as_png(1)[0]
    raw = httpx.post(f"{served.url}/v1/predict", content=film, headers={"content-type": "application/octet-stream"})
    form = httpx.post(f"{served.url}/v1/predict", files={field: ("film.png", film, "image/png")})
    assert form.status_code == 200
    assert form.json()["probabilities"] == raw.json()["probabilities"]


def test_several_files_are_answered_in_their_order(served: Served) -> None:
    films = films_as_png(5)
    form = httpx.post(f"{served.url}/v1/predict", files=[("files", film) for film in films])
    single = [httpx.post(f"{served.url}/v1/predict", content=film).json() for film in films]
    answers = form.json()["predictions"]
    assert list(form.json()) == ["predictions"]
    assert [answer["class"] for answer in answers] == [answer["class"] for answer in single]
    assert len({answer["id"] for answer in answers}) == 5


@pytest.mark.parametrize("given", ["", "two words", "x" * 129, "<script>"])
def test_a_request_id_that_is_not_plain_is_replaced(served: Served, given: str) -> None:
    answer = httpx.get(f"{served.url}/health/live", headers={"x-request-id": given})
    assert answer.headers["x-request-id"].startswith("r_")


def test_labels_are_kept_and_each_bad_row_is_refused_by_its_number(served: Served) -> None:
    film = films_as_png(1)[0]
    answer = httpx.post(f"{served.url}/v1/predict?reference=to-label", content=film).json()
    other = httpx.post(f"{served.url}/v1/predict", content=film).json()
    rows = [
        {"prediction": answer["id"], "label": "normal", "by": "dr-b", "at": "2020-11-21T14:03:00Z"},
        "not a row",
        {"prediction": other["id"], "label": "no such class"},
        {"prediction": "p_unknown", "label": "normal"},
        {"prediction": other["id"], "reference": "to-label", "label": "normal"},
        {"prediction": other["id"], "label": "normal", "at": "yesterday"},
        {"prediction": other["id"], "label": 1, "colour": "red"},
        {"prediction": other["id"], "label": "opacity"},
    ]
    done = httpx.post(f"{served.url}/v1/labels", json=rows)
    assert done.status_code == 200
    assert done.json()["accepted"] == 2
    reasons = {refused["row"]: refused["reason"] for refused in done.json()["refused"]}
    assert list(reasons) == [1, 2, 3, 4, 5, 6]
    assert reasons[1] == "not an object but text"
    assert "no such class" in reasons[2]
    assert "p_unknown" in reasons[3]
    assert reasons[4] == "one of prediction and reference is needed, and not both"
    assert reasons[5].startswith("at is not an RFC 3339 time")
    assert reasons[6] == "unknown key 'colour'; label is not text but a number"


def test_models_name_the_champion_and_since_when_it_serves(served: Served, workspace: tuple[Path, Bundle]) -> None:
    found = httpx.get(f"{served.url}/v1/models").json()
    (only,) = found["versions"]
    assert found["champion"] == "v1"
    assert (only["version"], only["bundle"], only["until"]) == ("v1", workspace[1].digest, None)
    assert only["since"].endswith("Z")


def test_findings_are_those_of_the_watch_and_none_is_an_alarm_on_clean_films(served: Served) -> None:
    found = httpx.get(f"{served.url}/v1/findings").json()
    assert set(found) == {"watching_since", "n", "findings"}
    assert found["watching_since"].endswith("Z")
    for finding in found["findings"]:
        assert set(finding) >= {"id", "kind", "alarm", "n", "at", "alpha", "log_e", "moved", "harm"}
        assert not finding["alarm"]


def test_health_says_live_and_ready_with_the_version(served: Served, workspace: tuple[Path, Bundle]) -> None:
    assert httpx.get(f"{served.url}/health/live").json() == {"status": "live"}
    ready = httpx.get(f"{served.url}/health/ready")
    assert ready.json() == {"status": "ready", "version": "v1", "bundle": workspace[1].digest}


def test_metrics_count_requests_predictions_and_name_the_champion(served: Served) -> None:
    before = httpx.post(f"{served.url}/v1/predict", content=films_as_png(1)[0]).json()
    httpx.get(f"{served.url}/no/such/path")
    text = httpx.get(f"{served.url}/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(lines['rounds_http_requests_total{route="/v1/predict",status="200"}']) >= 1
    assert float(lines['rounds_http_requests_total{route="other",status="404"}']) >= 1
    assert float(lines[f'rounds_predictions_total{{label="{before["class"]}",version="v1"}}']) >= 1
    assert float(lines['rounds_http_request_seconds_count{route="/v1/predict"}']) >= 1
    assert float(lines["rounds_queue_depth"]) == 0
    assert float(lines["rounds_swaps_total"]) == 1
    assert f'bundle="{before["bundle"]}",version="v1"' in text
    assert "/no/such/path" not in text
