"""The champion changes under traffic: no request fails, and every answer names the version that computed it."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import httpx
from tests.support.server import Served, server
from tests.support.workspace import films_as_png, opened, promote, promote_bundle

from rounds.capture import journal
from rounds.core.records import Bundle

FILM = films_as_png(1)[0]


class Clients:
    """Threads that ask without a pause and keep every answer."""

    def __init__(self, served: Served, n: int = 3) -> None:
        self.answers: list[dict[str, Any]] = []
        self.failed: list[str] = []
        self._served = served
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(n)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        with httpx.Client(base_url=self._served.url, headers={"content-type": "image/png"}, timeout=10) as client:
            while not self._ending.is_set():
                try:
                    answer = client.post("/v1/predict", content=FILM)
                except httpx.HTTPError as error:
                    self.failed.append(repr(error))
                    continue
                if answer.status_code == 200:
                    self.answers.append(answer.json())
                else:
                    self.failed.append(answer.text)

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()


def until(said: Any, seconds: float = 10.0) -> float:
    """Wait until it is so; the seconds that it took."""
    began = time.perf_counter()
    while not said():
        assert time.perf_counter() - began < seconds, "it never came"
        time.sleep(0.01)
    return time.perf_counter() - began


def version_of(served: Served) -> str:
    return str(httpx.get(f"{served.url}/health/ready").json().get("version"))


def test_ten_swaps_under_traffic_fail_no_request_and_every_answer_is_its_versions_own(tmp_path: Path) -> None:
    home = tmp_path / "home"
    bundles: dict[str, Bundle] = {"v1": promote(home)}
    took = []
    with server(home) as served:
        with Clients(served) as clients:
            until(lambda: bool(clients.answers))
            for number in range(2, 12):
                version = f"v{number}"
                bundles[version] = promote(home, bias=0.3 * number)
                took.append(until(lambda version=version: version_of(served) == version))
                time.sleep(0.05)
        text = httpx.get(f"{served.url}/metrics").text
    assert clients.failed == []
    assert "rounds_swaps_total 11.0\n" in text
    assert {answer["version"] for answer in clients.answers} == set(bundles)
    told = {
        (answer["version"], answer["bundle"], tuple(answer["probabilities"].values())) for answer in clients.answers
    }
    assert len({version for version, _, _ in told}) == 11
    for version, bundle, probabilities in told:
        assert bundle == bundles[version].digest
        own = expected(bundles[version])
        assert max(abs(a - b) for a, b in zip(probabilities, own, strict=True)) < 1e-5
    # The budget is 1 s for each; the tests share their cores with others, so a straggler is forgiven here.
    assert sorted(took)[len(took) // 2] < 1.0


def expected(bundle: Bundle) -> list[float]:
    from rounds.imaging.fit import to_pixels
    from rounds.runtime.predictor import Predictor
    from rounds.runtime.verdict import decide

    outputs = Predictor(bundle).answer(to_pixels(FILM, bundle.imaging)[None])
    probabilities: list[float] = decide(bundle.calibration, outputs.logits)[1][0].tolist()
    return probabilities


def test_a_champion_that_sees_films_otherwise_takes_over_without_a_failed_request(tmp_path: Path) -> None:
    home = tmp_path / "home"
    promote(home, size=16)
    with server(home) as served, Clients(served) as clients:
        promote(home, size=24)
        until(lambda: version_of(served) == "v2")
    assert clients.failed == []


def test_a_damaged_champion_leaves_the_old_one_serving_is_reported_once_and_heals_when_the_file_is_back(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    first = promote(home)
    with server(home) as served:
        second = promote(home, bias=1.0, spoil=lambda bundle: flip(bundle.path / "model.onnx"))
        until(lambda: integrity(home))
        time.sleep(0.5)
        assert version_of(served) == "v1"
        assert httpx.post(f"{served.url}/v1/predict", content=FILM).json()["bundle"] == first.digest
        (told,) = integrity(home)
        assert told["bundle"] == second.digest
        assert "model.onnx" in told["why"]
        found = httpx.get(f"{served.url}/v1/findings").json()["findings"]
        (finding,) = [finding for finding in found if finding["alarm"]]
        assert (finding["kind"], finding["version"]) == ("integrity", "v2")
        assert 'rounds_troubles_total{kind="not_seated"} 1.0' in httpx.get(f"{served.url}/metrics").text
        flip(second.path / "model.onnx")
        until(lambda: version_of(served) == "v2")
        assert len(integrity(home)) == 1


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def integrity(home: Path) -> list[dict[str, Any]]:
    with opened(home) as ports:
        return [dict(event.evidence) for event in ports.events.read(kinds=("alarm",))]


def test_a_server_without_a_champion_says_so_and_takes_up_the_first_one(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with opened(home):
        pass
    with server(home) as served:
        assert served.lines[0].startswith(f"listening on {served.url}, not ready: no champion")
        assert httpx.get(f"{served.url}/health/live").status_code == 200
        for answer in (
            httpx.get(f"{served.url}/health/ready"),
            httpx.post(f"{served.url}/v1/predict", content=FILM),
            httpx.post(f"{served.url}/v1/labels", json=[]),
        ):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            (fault,) = answer.json()["faults"]
            assert (answer.json()["detail"], fault["what"]) == ("no champion", "no version has been promoted")
            assert fault["next"] == "register a bundle and promote it: rounds promote BUNDLE"
        bundle = promote(home)
        until(lambda: version_of(served) == "v1")
        assert httpx.post(f"{served.url}/v1/predict", content=FILM).json()["bundle"] == bundle.digest
        until(lambda: f"ready on {served.url}" in served.lines)


def test_a_server_whose_champion_is_damaged_from_the_start_refuses_by_name_and_a_rollback_heals_it(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    first = promote(home)
    promote(home, bias=1.0, spoil=lambda bundle: flip(bundle.path / "bundle.json"))
    with server(home) as served:
        answer = httpx.post(f"{served.url}/v1/predict", content=FILM)
        assert answer.status_code == 503
        assert answer.json()["detail"].startswith("no champion in service: the bundle at ")
        assert answer.json()["faults"][0]["where"] == "bundle.json"
        promote_bundle(home, first)
        until(lambda: httpx.post(f"{served.url}/v1/predict", content=FILM).status_code == 200)


def test_after_kill_9_every_acknowledged_answer_is_in_the_store_with_its_film(tmp_path: Path) -> None:
    home = tmp_path / "home"
    promote(home)
    with server(home) as served, Clients(served) as clients:
        until(lambda: len(clients.answers) > 200)
        served.process.send_signal(signal.SIGKILL)
        served.process.wait(10)
    acknowledged = [answer["id"] for answer in clients.answers]
    with opened(home) as ports:
        journal.settle(ports)
        kept = {row.prediction: row for row in ports.captures.since(0)}
        assert set(acknowledged) <= set(kept)
        assert ports.blobs.get(kept[acknowledged[-1]].image) == FILM
    with server(home) as served:
        assert httpx.post(f"{served.url}/v1/predict", content=FILM).status_code == 200
