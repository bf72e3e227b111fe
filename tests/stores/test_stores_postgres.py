"""A PostgreSQL server that is restarted, and one that is away, under a process that goes on."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

import pytest
from tests.support.postgres import Server

from rounds.core.errors import StoreAway
from rounds.core.records import Captured
from rounds.stores.rows import open_rows


def film(name: str) -> Captured:
    at = datetime(2026, 3, 4, tzinfo=UTC)
    return Captured(name, at, "b", "v1", "i", "normal", (0.5,), (0.5,), (0.5,), True, 1.0)


def test_connections_survive_a_restart_of_the_server(postgres_server: Server) -> None:
    rows = open_rows(postgres_server.url)
    rows.events.append("alarm", who="watch", why="", evidence={})
    rows.captures.record([film("a")])
    postgres_server.stop()
    postgres_server.start()
    # the first word of each after the restart, with no failure between
    assert rows.events.head() == 1
    assert list(rows.captures.record([film("b")])) == [2]
    assert rows.events.append("alarm", who="watch", why="", evidence={}).seq == 2
    rows.close()


def test_a_server_that_is_away_is_said_at_once_and_taken_up_when_it_is_back(postgres_server: Server) -> None:
    rows = open_rows(postgres_server.url)
    rows.captures.record([film("a")])
    postgres_server.stop()
    for ask in (rows.events.head, lambda: rows.captures.record([film("b")]), rows.captures.count):
        begun = time.monotonic()
        with pytest.raises(StoreAway, match=r"does not answer\n.*Check that the database server runs"):
            ask()
        assert time.monotonic() - begun < 5
    postgres_server.start()
    assert list(rows.captures.record([film("a"), film("b")])) == [1, 2]
    assert rows.events.head() == 0
    rows.close()


def test_films_recorded_through_two_restarts_are_kept_once_each_in_contiguous_places(postgres_server: Server) -> None:
    rows, failed, ending = open_rows(postgres_server.url), [0], threading.Event()
    told: list[str] = []

    def work() -> None:
        while not ending.is_set():
            names = [f"p{len(told) + i}" for i in range(8)]
            while True:
                try:
                    rows.captures.record([film(name) for name in names])
                    break
                except StoreAway:
                    failed[0] += 1
                    time.sleep(0.05)
            told.extend(names)

    worker = threading.Thread(target=work)
    worker.start()
    for _ in range(2):
        time.sleep(0.3)
        postgres_server.stop()
        time.sleep(0.2)
        postgres_server.start()
    time.sleep(0.3)
    ending.set()
    worker.join(30)
    kept = rows.captures.since(0, limit=1_000_000)
    assert failed[0] > 0
    assert [row.prediction for row in kept] == told
    assert [row.seq for row in kept] == list(range(1, len(told) + 1))
    rows.close()
