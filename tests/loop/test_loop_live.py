"""A request in process: what is acknowledged is kept, and what cannot be kept is not acknowledged."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.support.bundles import tiny_films
from tests.support.dicoms import dicom
from tests.support.workspace import films_as_png, opened, promote

from rounds.core.errors import BadImage, Fault, NotWritable, StoreAway, WorldFault
from rounds.core.ports import Ports
from rounds.core.records import Captured, PredictRequest
from rounds.core.specs import Limits, MonitorSpec, ServeSpec
from rounds.imaging.fit import encode_png
from rounds.loop.live import SMALL_BYTES, Live


async def answered(ports: Ports, films: Sequence[bytes], **given: Any) -> list[Any]:
    live = Live(ports, given.get("serve", ServeSpec()), given.get("monitor", MonitorSpec()))
    await live.start()
    try:
        asked = (live.predict(PredictRequest(film, f"r_{i}")) for i, film in enumerate(films))
        return await asyncio.gather(*asked, return_exceptions=True)
    finally:
        await live.stop()


def test_films_asked_together_are_answered_each_with_its_own(home: Path) -> None:
    promote(home)
    films = films_as_png(40)
    with opened(home) as ports:
        together = asyncio.run(answered(ports, films))
        alone = [asyncio.run(answered(ports, [film]))[0] for film in films[:5]]
        assert ports.captures.count() == 45
        kept = {row.prediction: row for row in ports.captures.since(0)}
    for prediction, again in zip(together, alone, strict=False):
        assert prediction.label == again.label
        assert list(prediction.probabilities.values()) == pytest.approx(list(again.probabilities.values()), abs=1e-6)
    assert [kept[prediction.id].label for prediction in together] == [prediction.label for prediction in together]


def test_a_store_that_fails_refuses_the_request_and_nothing_is_acknowledged(home: Path) -> None:
    promote(home)

    class Full:
        def __init__(self, ports: Ports) -> None:
            self.captures = ports.captures

        def __getattr__(self, name: str) -> Any:
            return getattr(self.captures, name)

        def record(self, _rows: Sequence[Captured]) -> Sequence[int]:
            raise NotWritable("the disk is full", [Fault("no space left", "capture.db")])

    with opened(home) as ports:
        full: Any = Full(ports)
        answers = asyncio.run(answered(dataclasses.replace(ports, captures=full), films_as_png(3)))
        assert ports.captures.count() == 0
    for error in answers:
        assert isinstance(error, StoreAway)
        assert error.http_status == 503
        assert (
            str(error)
            == "the answer could not be kept, so it is not given: the disk is full\n  capture.db: no space left"
        )


def test_a_bad_film_in_a_batch_is_refused_alone(home: Path) -> None:
    promote(home)
    good = films_as_png(2)
    with opened(home) as ports:
        first, bad, last = asyncio.run(answered(ports, [good[0], b"text", good[1]]))
        assert ports.captures.count() == 2
    assert isinstance(bad, BadImage)
    assert first.id != last.id


def test_a_large_film_is_decoded_beside_the_batch_thread_with_the_same_answer(home: Path) -> None:
    promote(home)
    film = encode_png(tiny_films(1, size=200)[0])
    assert len(film) > SMALL_BYTES
    with opened(home) as ports:
        (answer,) = asyncio.run(answered(ports, [film]))
        row = ports.captures.find(answer.id)
        (small,) = asyncio.run(answered(ports, [film], serve=ServeSpec(limits=Limits(max_pixels=100))))
    assert row is not None
    assert answer.probabilities.keys() == {"normal", "opacity"}
    assert isinstance(small, BadImage)


def test_of_a_dicom_film_only_its_pixels_are_kept(home: Path) -> None:
    promote(home)
    pixels = tiny_films(1)[0, 0]
    film = dicom(pixels, PatientName="Vondracek^Zdenek", PatientID="PID-7731")
    with opened(home) as ports:
        of_dicom, of_png = asyncio.run(answered(ports, [film, encode_png(pixels)]))
        kept = [ports.blobs.get(row.image) for row in ports.captures.since(0)]
    assert of_dicom.probabilities == of_png.probabilities
    assert set(kept) == {encode_png(pixels)}
    for path in home.rglob("*"):
        assert not path.is_file() or b"Vondracek" not in path.read_bytes()


def test_large_films_over_the_queue_are_refused(home: Path) -> None:
    promote(home)
    film = encode_png(tiny_films(1, size=200)[0])
    with opened(home) as ports:
        answers = asyncio.run(answered(ports, [film] * 8, serve=ServeSpec(max_queue=2)))
    refused = [answer for answer in answers if isinstance(answer, WorldFault)]
    assert 1 <= len(refused) <= 6
    assert str(refused[0]).startswith(
        "the server is overloaded\n  the queue is full; expected at most 2 waiting requests"
    )


def test_the_audit_draws_its_share_before_the_outcome(home: Path) -> None:
    promote(home)
    with opened(home) as ports:
        asyncio.run(answered(ports, films_as_png(60), monitor=MonitorSpec(audit_share=0.5)))
        drawn = sum(row.audited for row in ports.captures.since(0))
        asyncio.run(answered(ports, films_as_png(60), monitor=MonitorSpec(audit_share=0.0)))
        later = sum(row.audited for row in ports.captures.since(60))
    assert 12 <= drawn <= 48
    assert later == 0


def test_a_log_that_cannot_be_read_is_told_and_the_old_version_goes_on(home: Path) -> None:
    promote(home)
    told: list[str] = []

    class Away:
        def __init__(self, ports: Ports) -> None:
            self.events, self.away = ports.events, False

        def __getattr__(self, name: str) -> Any:
            return getattr(self.events, name)

        def head(self) -> int:
            if self.away:
                raise StoreAway("the log does not answer")
            return self.events.head()

    async def story(ports: Ports) -> str:
        away: Any = Away(ports)
        ports = dataclasses.replace(ports, events=away)
        live = Live(ports, ServeSpec(poll_s=0.01), MonitorSpec(), tell=lambda what, _: told.append(what))
        await live.start()
        away.away = True
        began = time.perf_counter()
        while "store_away" not in told and time.perf_counter() - began < 5:
            await asyncio.sleep(0.01)
        assert live.following
        answer = await live.predict(PredictRequest(films_as_png(1)[0], "r_1"))
        await live.stop()
        assert not live.following
        return answer.version

    with opened(home) as ports:
        assert asyncio.run(story(ports)) == "v1"
    assert told[:2] == ["seated", "store_away"]


def test_a_live_loop_that_never_started_can_be_stopped(home: Path) -> None:
    with opened(home) as ports:
        asyncio.run(Live(ports, ServeSpec(), MonitorSpec()).stop())
