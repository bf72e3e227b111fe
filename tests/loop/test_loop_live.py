"""A request in process: what is acknowledged is kept, and what cannot be kept is not acknowledged."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.bundles import tiny_films
from tests.support.dicoms import dicom
from tests.support.workspace import films_as_png, opened, promote

from rounds.capture import journal
from rounds.capture.journal import Batch
from rounds.core.errors import BadImage, StoreAway, WorldFault
from rounds.core.ports import Ports
from rounds.core.records import Captured, PredictRequest
from rounds.core.specs import Limits, MonitorSpec, ServeSpec
from rounds.imaging.fit import encode_png
from rounds.loop.live import Live

THREAD = ServeSpec(workers=0)


async def answered(ports: Ports, films: Sequence[bytes], **given: Any) -> list[Any]:
    live = Live(ports, given.get("serve", THREAD), given.get("monitor", MonitorSpec()))
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


def test_a_store_that_is_away_costs_no_answer_and_has_them_all_when_it_is_back(home: Path) -> None:
    promote(home)
    told: list[str] = []

    class Away:
        def __init__(self, ports: Ports) -> None:
            self.captures, self.away = ports.captures, True

        def __getattr__(self, name: str) -> Any:
            return getattr(self.captures, name)

        def record(self, rows: Sequence[Captured]) -> Sequence[int]:
            if self.away:
                raise StoreAway("the database does not answer")
            return self.captures.record(rows)

    async def story(ports: Ports, away: Any) -> tuple[list[str], int]:
        live = Live(ports, THREAD, MonitorSpec(), tell=lambda what, _: told.append(what))
        await live.start()
        answers = [await live.predict(PredictRequest(film, "r")) for film in films_as_png(3)]
        while "store_away" not in told:
            await asyncio.sleep(0.01)
        waits = live.backlog
        await live.stop()
        return [answer.id for answer in answers], waits

    with opened(home) as ports:
        away: Any = Away(ports)
        ids, waits = asyncio.run(story(dataclasses.replace(ports, captures=away), away))
        assert waits > 0
        assert ports.captures.count() == 0
        asyncio.run(answered(ports, []))
        assert [row.prediction for row in ports.captures.since(0)] == ids
        assert journal.backlog(home / "journal") == 0


def test_an_answer_that_cannot_be_written_down_is_not_given(home: Path) -> None:
    promote(home)
    (home / "journal").write_text("no folder")
    with opened(home) as ports:
        answers = asyncio.run(answered(ports, films_as_png(3), serve=ServeSpec(workers=0)))
        assert ports.captures.count() == 0
    for error in answers:
        assert isinstance(error, StoreAway)
        assert error.http_status == 503
        assert str(error).startswith(
            f"the answer could not be kept, so it is not given\n  {home}/journal: the answers cannot be written down"
        )


def test_so_much_may_wait_for_a_store_that_is_away_and_no_more(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    folder.mkdir()
    (folder / "earlier.journal").write_bytes(bytes(1000))
    batch = Batch("v1", "b", ["n"], [["p_1", 0, 1.0, None, None, 0]], *(np.zeros((1, 1)) for _ in range(3)))  # type: ignore[arg-type]
    with pytest.raises(StoreAway, match="1,000 bytes wait for a store that is away, 999 may"):
        journal.Journal(folder, 999).append(batch, [b"film"], datetime.now(UTC))


def test_a_worker_that_dies_costs_its_films_and_nobody_elses_and_is_replaced(home: Path) -> None:
    promote(home)

    async def story(ports: Ports) -> tuple[list[Any], list[Any], int]:
        live = Live(ports, ServeSpec(), MonitorSpec())
        await live.start()
        try:
            (pid,) = live.processes
            os.kill(pid, signal.SIGSTOP)
            asked = [asyncio.ensure_future(live.predict(PredictRequest(film, "r"))) for film in films_as_png(40)]
            await asyncio.sleep(0.05)
            os.kill(pid, signal.SIGKILL)
            first = await asyncio.gather(*asked, return_exceptions=True)
            then = [await live.predict(PredictRequest(film, "r")) for film in films_as_png(2)]
            while not ports.events.read(kinds=("alarm",)):
                await asyncio.sleep(0.01)
            return first, then, live.deaths
        finally:
            await live.stop()

    with opened(home) as ports:
        first, then, deaths = asyncio.run(story(ports))
        kept = {row.prediction for row in ports.captures.since(0)}
        (alarm,) = ports.events.read(kinds=("alarm",))
    refused = [answer for answer in first if isinstance(answer, WorldFault)]
    assert 1 <= len(refused) <= 32
    assert all(str(one).startswith("no answer: a worker died\n  the worker that held it died") for one in refused)
    assert {answer.id for answer in [*first, *then] if not isinstance(answer, Exception)} == kept
    assert deaths == 1
    assert alarm.evidence["kind"] == "integrity"
    assert alarm.why == f"a worker died (signal 9); {len(refused)} films it held were refused, it is started again"


def test_a_bad_film_in_a_batch_is_refused_alone(home: Path) -> None:
    promote(home)
    good = films_as_png(2)
    with opened(home) as ports:
        first, bad, last = asyncio.run(answered(ports, [good[0], b"text", good[1]]))
        assert ports.captures.count() == 2
    assert isinstance(bad, BadImage)
    assert first.id != last.id


def test_a_film_over_the_limits_is_refused_and_not_kept(home: Path) -> None:
    promote(home)
    film = encode_png(tiny_films(1, size=200)[0])
    with opened(home) as ports:
        (answer,) = asyncio.run(answered(ports, [film]))
        row = ports.captures.find(answer.id)
        limits = Limits(max_pixels=100)
        (small,) = asyncio.run(answered(ports, [film], serve=ServeSpec(workers=0, limits=limits)))
        assert ports.captures.count() == 1
    assert row is not None
    assert answer.probabilities.keys() == {"normal", "opacity"}
    assert isinstance(small, BadImage)
    assert small.http_status == 413


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


def test_films_over_the_queue_are_refused(home: Path) -> None:
    promote(home)
    film = encode_png(tiny_films(1, size=200)[0])

    async def story(ports: Ports) -> list[Any]:
        live = Live(ports, ServeSpec(workers=0, max_queue=2), MonitorSpec())
        await live.start()
        asked = []
        for _ in range(8):
            try:
                asked.append(live.answer(PredictRequest(film, "r")))
            except WorldFault as error:
                refused.append(error)
        await asyncio.gather(*asked)
        await live.stop()
        return asked

    refused = list[WorldFault]()
    with opened(home) as ports:
        asyncio.run(story(ports))
    assert len(refused) == 5
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
        live = Live(ports, ServeSpec(workers=0, poll_s=0.01), MonitorSpec(), tell=lambda what, _: told.append(what))
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
