"""One suite for every store that claims a port: memory, SQLite, PostgreSQL where it is installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.together import together

from rounds.core.ids import digest, new_id
from rounds.core.ports import Captures, EventLog, Ledger, Snapshots
from rounds.core.records import Captured, Cost, Label, Shadowed
from rounds.stores.memory import MemoryCaptures, MemoryEvents, MemoryLedger, MemorySnapshots
from rounds.stores.rows import Rows, open_rows

AT = datetime(2026, 3, 4, 5, 6, 7, 890123, UTC)


class MemoryRows:
    """The ports in memory under the names that `Rows` has."""

    def __init__(self) -> None:
        self.events = MemoryEvents()
        self.captures = MemoryCaptures()
        self.snapshots = MemorySnapshots()
        self.ledger = MemoryLedger()

    def close(self) -> None:
        pass


@contextmanager
def opened(kind: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[MemoryRows | Rows]:
    if kind == "memory":
        yield MemoryRows()
        return
    if kind == "sqlite":
        rows = open_rows(f"sqlite:///{folder / 'rows.db'}")
    else:
        server = request.getfixturevalue("postgres_url")
        name = f"t{new_id('')}"
        import psycopg

        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
        rows = open_rows(server.rsplit("/", 1)[0] + f"/{name}")
    try:
        yield rows
    finally:
        rows.close()


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def rows(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MemoryRows | Rows]:
    opening: AbstractContextManager[MemoryRows | Rows] = opened(request.param, tmp_path, request)
    with opening as found:
        yield found


@pytest.fixture
def events(rows: Any) -> EventLog:
    found: EventLog = rows.events
    return found


@pytest.fixture
def captures(rows: Any) -> Captures:
    found: Captures = rows.captures
    return found


@pytest.fixture
def snapshots(rows: Any) -> Snapshots:
    found: Snapshots = rows.snapshots
    return found


@pytest.fixture
def ledger(rows: Any) -> Ledger:
    found: Ledger = rows.ledger
    return found


def film(name: str, **changes: Any) -> Captured:
    usual = Captured(
        prediction=name,
        at=AT,
        bundle="b" * 64,
        version="v1",
        image=digest(name.encode()),
        label="normal",
        probabilities=(0.1, 0.9),
        logits=(1 / 3, -2e-308),
        scores=(0.1 + 0.2, -0.0, 1e300, float("inf")),
        audited=True,
        ms=1.25,
        reference="R1",
        subject="s1",
    )
    return replace(usual, **changes)


# --- events


def test_an_event_comes_back_as_it_was_appended(events: EventLog) -> None:
    evidence = {"float": 0.1, "text": "Lunge, Röntgen, 肺", "none": None, "deep": {"list": [1, 2.5, True]}}
    made = events.append("registered", who="operator", why="first", evidence=evidence)
    assert made.evidence == evidence
    assert (made.seq, made.prev, made.hash) == (1, "0" * 64, made.sealed())
    assert list(events.read()) == [made]


def test_each_event_is_chained_to_the_one_before(events: EventLog) -> None:
    made = [events.append("alarm", who="watch", why=str(i), evidence={"i": i}) for i in range(5)]
    assert [event.seq for event in made] == [1, 2, 3, 4, 5]
    assert [event.prev for event in made[1:]] == [event.hash for event in made[:-1]]
    assert len({event.id for event in made}) == 5


def test_events_are_read_after_a_place_and_by_kind(events: EventLog) -> None:
    for kind in ("packed", "alarm", "gated", "alarm"):
        events.append(kind, who="test", why="", evidence={})
    assert [event.seq for event in events.read(after=2)] == [3, 4]
    assert [event.seq for event in events.read(kinds=("alarm",))] == [2, 4]
    assert [event.seq for event in events.read(after=2, kinds=("alarm", "packed"))] == [4]
    assert list(events.read(after=4)) == []


def test_the_head_of_the_log_is_its_last_place(events: EventLog) -> None:
    assert events.head() == 0
    events.append("alarm", who="watch", why="", evidence={})
    events.append("alarm", who="watch", why="", evidence={})
    assert events.head() == 2


def test_tuples_and_times_in_evidence_become_json_types_at_once(events: EventLog) -> None:
    made = events.append("alarm", who="watch", why="", evidence={"moved": ("blur", 1.5), "at": AT})
    assert made.evidence == {"moved": ["blur", 1.5], "at": "2026-03-04T05:06:07.890123Z"}


def test_evidence_that_is_not_a_number_is_refused_and_nothing_is_appended(events: EventLog) -> None:
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        events.append("alarm", who="watch", why="", evidence={"log_e": float("nan")})
    assert events.head() == 0


def test_changing_the_evidence_one_was_given_does_not_change_the_log(events: EventLog) -> None:
    given = {"list": [1]}
    made: Any = events.append("alarm", who="watch", why="", evidence=given)
    given["list"].append(2)
    made.evidence["list"].append(3)
    assert events.read()[0].evidence == {"list": [1]}


def test_events_from_many_threads_form_one_chain(events: EventLog) -> None:
    def work(who: int) -> None:
        for i in range(10):
            events.append("alarm", who=str(who), why="", evidence={"i": i})

    together(work, 4)
    found = events.read()
    assert [event.seq for event in found] == list(range(1, 41))
    assert [event.prev for event in found[1:]] == [event.hash for event in found[:-1]]
    assert all(event.hash == event.sealed() for event in found)


# --- captures


def test_a_film_comes_back_exactly_with_its_place(captures: Captures) -> None:
    given = film("p1")
    assert list(captures.record([given])) == [1]
    assert captures.find("p1") == replace(given, seq=1)
    assert str(captures.find("p1").scores) == str(given.scores)  # type: ignore[union-attr]


def test_films_without_reference_subject_or_scores_come_back_so(captures: Captures) -> None:
    given = film("p1", reference=None, subject=None, scores=(), audited=False)
    captures.record([given])
    assert captures.since(0) == [replace(given, seq=1)]


def test_places_rise_by_one_over_batches(captures: Captures) -> None:
    assert list(captures.record([film("a"), film("b")])) == [1, 2]
    assert list(captures.record([])) == []
    assert list(captures.record([film("c")])) == [3]
    assert (captures.count(), captures.last()) == (3, 3)


def test_films_are_read_after_a_place_in_order_up_to_a_limit_and_by_bundle(captures: Captures) -> None:
    captures.record([film(name, bundle=name[0] * 64) for name in ("b1", "c1", "b2", "c2", "b3")])
    assert [row.prediction for row in captures.since(1)] == ["c1", "b2", "c2", "b3"]
    assert [row.prediction for row in captures.since(1, limit=2)] == ["c1", "b2"]
    assert [row.prediction for row in captures.since(1, bundle="b" * 64)] == ["b2", "b3"]
    assert list(captures.since(5)) == []


def test_a_film_is_found_by_its_id_and_several_by_a_reference(captures: Captures) -> None:
    captures.record([film("a"), film("b", reference="R2"), film("c")])
    assert [row.prediction for row in captures.by_reference("R1")] == ["a", "c"]
    assert list(captures.by_reference("none")) == []
    assert captures.find("none") is None


def test_a_film_that_is_kept_already_is_left_and_the_places_of_new_ones_stay_contiguous(captures: Captures) -> None:
    captures.record([film("a"), film("b", label="opacity")])
    again = [film("b"), film("c"), film("a", ms=9.0), film("d"), film("c", ms=9.0)]
    assert list(captures.record(again)) == [2, 3, 1, 4, 3]
    assert list(captures.record(again)) == [2, 3, 1, 4, 3]
    assert [(row.seq, row.prediction, row.label, row.ms) for row in captures.since(0)] == [
        (1, "a", "normal", 1.25),
        (2, "b", "opacity", 1.25),
        (3, "c", "normal", 1.25),
        (4, "d", "normal", 1.25),
    ]
    assert list(captures.record([film("e")])) == [5]


def test_a_replay_in_many_threads_keeps_each_film_once(captures: Captures) -> None:
    def work(who: int) -> None:
        for i in range(5):
            captures.record([film(f"{i}-{j}") for j in range(8)])

    together(work, 4)
    assert [row.seq for row in captures.since(0)] == list(range(1, 41))
    assert len({row.prediction for row in captures.since(0)}) == 40


def shadow(name: str, **changes: Any) -> Shadowed:
    usual = Shadowed(name, "v2", "c" * 64, "opacity", (0.25, 0.75), (0.1 + 0.2, float("inf")), 2.5)
    return replace(usual, **changes)


def test_a_shadow_answer_comes_back_exactly_once_for_each_film_and_bundle(captures: Captures) -> None:
    captures.record([film("a"), film("b")])
    given = [shadow("a"), shadow("b"), shadow("a", bundle="d" * 64), shadow("a", ms=9.0), shadow("nobody")]
    assert captures.record_shadows(given) == 3
    assert captures.record_shadows([*given, shadow("b", bundle="d" * 64)]) == 1
    assert captures.record_shadows([]) == 0
    kept = [replace(row, seq=i) for i, row in enumerate([*given[:3], shadow("b", bundle="d" * 64)], 1)]
    assert list(captures.shadows()) == kept
    assert list(captures.shadows("d" * 64)) == kept[2:]
    assert list(captures.shadows(after=1, limit=2)) == kept[1:3]
    assert list(captures.shadows("c" * 64, after=2)) == []


def test_shadow_answers_go_with_the_film_of_an_erased_subject(captures: Captures) -> None:
    captures.record([film("a"), film("b", subject="s2")])
    captures.record_shadows([shadow("a"), shadow("b")])
    captures.erase("s1")
    assert [row.prediction for row in captures.shadows()] == ["b"]
    assert captures.record_shadows([shadow("a"), shadow("b", bundle="d" * 64)]) == 1
    assert [row.seq for row in captures.shadows()] == [2, 3]


def test_images_come_oldest_first_with_whether_the_audit_waits(captures: Captures) -> None:
    twice, later = digest(b"twice"), AT + timedelta(days=1)
    films = [film("a", image=twice, size=5), film("b", audited=False, size=7, at=AT + timedelta(seconds=1))]
    captures.record([*films, film("c", image=twice, at=later, audited=False), film("d", at=later)])
    captures.attach([("d", Label("normal"))])
    rest = sorted([(twice, later, 5, True), (digest(b"d"), later, 0, False)])
    assert list(captures.images()) == [(digest(b"b"), AT + timedelta(seconds=1), 7, False), *rest]
    captures.drop_images([twice, digest(b"nothing")])
    assert [row[0] for row in captures.images()] == [digest(b"b"), digest(b"d")]
    assert [row.gone for row in captures.since(0)] == [True, False, True, False]
    captures.drop_images([])


def test_the_first_label_of_a_prediction_stays(captures: Captures) -> None:
    captures.record([film("a"), film("b")])
    captures.attach([("a", Label("normal", "a", None, "reader", AT)), ("a", Label("opacity", "a"))])
    captures.attach([("a", Label("opacity", "a")), ("b", Label("opacity", reference="R1"))])
    assert captures.labels() == {
        "a": Label("normal", "a", None, "reader", AT),
        "b": Label("opacity", "b", "R1"),
    }
    assert captures.labels(["b", "none"]) == {"b": Label("opacity", "b", "R1")}
    assert captures.labels([]) == {}


def test_a_label_for_a_film_that_is_not_kept_is_left_out(captures: Captures) -> None:
    captures.attach([("nobody", Label("normal", "nobody"))])
    assert captures.labels() == {}


def test_labels_of_more_films_than_a_statement_takes_are_found(captures: Captures) -> None:
    captures.record([film(f"p{i}") for i in range(100)])
    captures.attach([(f"p{i}", Label("normal")) for i in range(100)])
    assert len(captures.labels([f"p{i}" for i in range(70_000)])) == 100


def test_erasing_a_subject_leaves_no_row_no_label_and_names_images_nobody_else_needs(captures: Captures) -> None:
    shared = digest(b"shared")
    captures.record(
        [film("a"), film("b", image=shared), film("c", image=shared, subject="s2"), film("d", subject=None)]
    )
    captures.attach([(name, Label("normal")) for name in "abcd"])
    assert list(captures.erase("s1")) == [digest(b"a")]
    assert [row.prediction for row in captures.since(0)] == ["c", "d"]
    assert sorted(captures.labels()) == ["c", "d"]
    assert list(captures.erase("s1")) == []


def test_the_place_of_an_erased_film_is_never_given_again(captures: Captures) -> None:
    captures.record([film("a"), film("b")])
    captures.erase("s1")
    assert (captures.count(), captures.last()) == (0, 2)
    assert list(captures.record([film("c")])) == [3]


def test_films_from_many_threads_get_places_of_their_own(captures: Captures) -> None:
    places: list[int] = []

    def work(who: int) -> None:
        for i in range(5):
            places.extend(captures.record([film(f"{who}-{i}-{j}") for j in range(8)]))

    together(work, 4)
    assert sorted(places) == list(range(1, 161))
    assert [row.seq for row in captures.since(0)] == list(range(1, 161))


# --- snapshots and ledger


def test_a_state_is_replaced_only_by_who_saw_the_last_one(snapshots: Snapshots) -> None:
    assert snapshots.load("watch") is None
    assert snapshots.save("watch", 0, b"one")
    assert not snapshots.save("watch", 0, b"late")
    assert snapshots.save("watch", 1, b"\x00two")
    assert not snapshots.save("watch", 1, b"late")
    assert not snapshots.save("other", 3, b"never seen")
    assert snapshots.load("watch") == (2, b"\x00two")
    assert snapshots.load("other") is None


def test_of_many_threads_with_the_same_state_one_replaces_it(snapshots: Snapshots) -> None:
    won: list[int] = []

    def work(who: int) -> None:
        won.extend(seen for seen in range(5) if snapshots.save("watch", seen, str(who).encode()))

    together(work, 4)
    assert sorted(won) == sorted(set(won))


def test_costs_come_back_in_the_order_they_were_booked(ledger: Ledger) -> None:
    costs = [Cost("train", "d1", AT, 1.5, 2.25, 7), Cost("export", "r1", AT - timedelta(days=1), 0.1, 0.2)]
    for cost in costs:
        ledger.book(cost)
    assert list(ledger.read()) == costs
