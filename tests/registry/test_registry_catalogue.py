"""The log folded: ids, who serves, where a rollback goes, and entries nobody may smuggle in."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rounds.core.errors import DamagedData, GateRefused, Refused, UnknownId
from rounds.core.ports import EventLog
from rounds.core.records import Bundle, Calibration, GateReport, ModelVersion, Parents, Scoring
from rounds.core.specs import ImagingSpec
from rounds.registry import versions
from rounds.registry.catalogue import Catalogue
from rounds.registry.log import audit
from rounds.stores.memory import MemoryEvents
from rounds.stores.rows import open_rows


def bundle(letter: str, path: Path = Path("bundles")) -> Bundle:
    calibration = Calibration(1.0, (0.0, 0.0), 0.5, (1.0, 1.0), 0.1)
    parents = Parents("d" * 64, "run1", "c" * 64, "code")
    digest = letter * 64
    return Bundle(digest, path / digest, ("a", "b"), ImagingSpec(), calibration, Scoring((), (), (), ()), parents)


def add(events: EventLog, kind: str, **evidence: Any) -> str:
    return events.append(kind, who="test", why="", evidence=evidence).id


def judged(
    events: EventLog, made: Bundle, *, passed: bool = True, against: str | None = None, frozen: str = "f"
) -> str:
    report = GateReport(made.digest, against, passed, (), 1, 0.05)
    return versions.record_gate(events, report, frozen=frozen * 64, why="", who="gate").id


def serve(events: EventLog, letter: str, *, passed: bool = True, overruled: str | None = None) -> ModelVersion:
    made = bundle(letter)
    version = versions.register(events, made, why="", who="test")
    present = Catalogue.of(events.read()).champion
    gate = judged(events, made, passed=passed, against=present.bundle if present else None)
    versions.promote(events, version, gate=gate, why="", who="test", overruled=overruled)
    return version


def champion(events: EventLog) -> str | None:
    found = Catalogue.of(events.read()).champion
    return found.version if found else None


@pytest.fixture
def events() -> EventLog:
    return MemoryEvents()


def test_a_data_set_is_found_by_name_digest_prefix_and_latest(events: EventLog) -> None:
    for name, letter in (("xray", "a"), ("xray", "b"), ("hand", "c")):
        add(events, "prepared", name=name, digest=letter * 64, path=f"data/{letter}")
    catalogue = Catalogue.of(events.read())
    refs = ("xray", "xray@aaaa", "xray@" + "a" * 64, "a" * 64, "cc", "hand", "latest")
    assert [catalogue.dataset(ref).path[-1] for ref in refs] == ["b", "a", "a", "a", "c", "c", "c"]
    with pytest.raises(UnknownId, match="no data set 'foot'"):
        catalogue.dataset("foot")
    with pytest.raises(UnknownId, match="no data set 'cc'"):
        catalogue.dataset("xray@cc")


def test_runs_and_bundles_are_found_by_id_prefix_latest_champion_and_version(events: EventLog) -> None:
    for run in ("run1", "other2"):
        add(events, "trained", run=run, data="d" * 64, config="c", code="x", seed=0, record={})
    add(events, "packed", bundle="a" * 64, path="bundles/a", run="run1", data="d" * 64, parent=None)
    add(events, "recalibrated", bundle="b" * 64, path="bundles/b", run="run1", data="d" * 64, parent="a" * 64)
    serve(events, "a")
    catalogue = Catalogue.of(events.read())
    assert [catalogue.run(ref).run for ref in ("run1", "oth", "latest", "champion")] == [
        "run1",
        "other2",
        "other2",
        "run1",
    ]
    refs = ("a" * 64, "bb", "latest", "champion", "v1")
    assert [catalogue.bundle(ref).bundle[0] for ref in refs] == ["a", "b", "b", "a", "a"]
    assert catalogue.bundle("b").parent == "a" * 64
    assert [catalogue.version(ref).version for ref in ("v1", "champion", "aaa")] == ["v1", "v1", "v1"]
    for find in (catalogue.run, catalogue.bundle, catalogue.version):
        with pytest.raises(UnknownId, match=r"no (run|bundle|version) 'zzz'"):
            find("zzz")


def test_without_a_champion_asking_for_it_says_what_to_do(events: EventLog) -> None:
    with pytest.raises(UnknownId, match="Promote a bundle first"):
        Catalogue.of(events.read()).bundle("champion")


def test_the_same_bundle_keeps_its_number_and_a_new_one_gets_the_next(events: EventLog) -> None:
    named = [versions.register(events, bundle(letter), why="", who="test").version for letter in "aba"]
    assert named == ["v1", "v2", "v1"]


def test_bundles_that_are_registered_at_once_get_numbers_of_their_own(tmp_path: Path) -> None:
    rows = open_rows(f"sqlite:///{tmp_path / 'rows.db'}")
    found: list[ModelVersion] = []

    def register(letter: str) -> None:
        found.append(versions.register(rows.events, bundle(letter), why="", who=letter))

    threads = [threading.Thread(target=register, args=(letter,)) for letter in "abcdefabcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    known = Catalogue.of(rows.events.read()).versions
    rows.close()
    assert len(found) == 12
    assert {(v.version, v.bundle) for v in found} == {(v.version, v.bundle) for v in known}
    assert len({v.version for v in known}) == len({v.bundle for v in known}) == 6


@pytest.mark.parametrize("case", ["no record", "another bundle's", "a refusal"])
def test_nothing_is_promoted_without_a_passing_gate_record_of_its_own(events: EventLog, case: str) -> None:
    version = versions.register(events, bundle("a"), why="", who="test")
    gate = {
        "no record": "e_none",
        "another bundle's": judged(events, bundle("b")),
        "a refusal": judged(events, bundle("a"), passed=False),
    }[case]
    with pytest.raises(GateRefused, match=rf"v1 may not serve\n.*expected a passing gate record .*; got {case}"):
        versions.promote(events, version, gate=gate, why="", who="test")
    assert champion(events) is None


def test_a_smuggled_promotion_makes_no_champion_and_fails_the_audit(events: EventLog) -> None:
    serve(events, "a")
    version = versions.register(events, bundle("b"), why="", who="test")
    gate = judged(events, bundle("b"), passed=False)
    smuggled = add(events, "promoted", version=version.version, bundle=version.bundle, gate=gate, provisional=False)
    catalogue = Catalogue.of(events.read())
    assert catalogue.champion is not None
    assert catalogue.champion.version == "v1"
    assert [event.id for event in catalogue.invalid] == [smuggled]
    found = audit(events.read())
    assert (found.ok, found.first_broken) == (False, smuggled)


def test_a_person_may_overrule_a_refusal_but_nothing_rolls_back_to_it(events: EventLog) -> None:
    serve(events, "a", passed=False, overruled="the only one we have")
    serve(events, "b")
    assert champion(events) == "v2"
    assert Catalogue.of(events.read()).previous() is None
    assert Catalogue.of(events.read()).intervals()[0]["overruled"] == "the only one we have"
    for to in (None, "v1"):
        with pytest.raises(Refused, match="the rollback is refused"):
            versions.roll_back(events, to=to, why="", who="test")


def test_rollbacks_walk_back_and_never_forward(events: EventLog) -> None:
    for letter in "abc":
        serve(events, letter)
    went = [versions.roll_back(events, why="", who="test").evidence["version"] for _ in range(2)]
    assert went == ["v2", "v1"]
    with pytest.raises(Refused, match=r"the rollback is refused\n.*nowhere to go back to"):
        versions.roll_back(events, why="", who="test")
    serve(events, "d")
    previous = Catalogue.of(events.read()).previous()
    assert previous is not None
    assert previous.version == "v1"


def test_a_rollback_to_a_version_that_was_left_goes_back_from_there_to_the_one_before(events: EventLog) -> None:
    for letter in "abc":
        serve(events, letter)
    versions.roll_back(events, to="v1", why="", who="test")
    assert versions.roll_back(events, to="v3", why="", who="test").evidence["version"] == "v3"
    assert champion(events) == "v3"
    with pytest.raises(Refused):
        versions.roll_back(events, why="", who="test")


def test_a_version_that_served_twice_is_not_returned_to_after_it_was_rolled_back_from(events: EventLog) -> None:
    for letter in "aba":
        serve(events, letter)
    assert versions.roll_back(events, why="", who="test").evidence["version"] == "v2"
    with pytest.raises(Refused):
        versions.roll_back(events, why="", who="test")


@pytest.mark.parametrize(("to", "got"), [("v2", "v2, which serves"), ("v3", "v3, which never passed")])
def test_a_rollback_to_the_champion_or_to_what_never_passed_is_refused(events: EventLog, to: str, got: str) -> None:
    serve(events, "a")
    serve(events, "b")
    versions.register(events, bundle("c"), why="", who="test")
    with pytest.raises(Refused, match=rf"nowhere to go back to.*got {got}"):
        versions.roll_back(events, to=to, why="", who="test")


def test_intervals_say_who_served_when_and_who_waits(events: EventLog) -> None:
    serve(events, "a")
    serve(events, "b")
    versions.register(events, bundle("c"), why="", who="test")
    versions.roll_back(events, why="", who="test")
    at = [event.at for event in events.read(kinds=("promoted", "rolled_back"))]
    found = [(one["version"], one["since"], one["until"]) for one in Catalogue.of(events.read()).intervals()]
    assert found == [("v1", at[0], at[1]), ("v2", at[1], at[2]), ("v1", at[2], None), ("v3", None, None)]


def test_candidates_and_promotions_are_counted_against_the_test_set_in_force(events: EventLog) -> None:
    judged(events, bundle("a"), frozen="f")
    for passed in (True, False, False):
        judged(events, bundle("b"), passed=passed, against="a" * 64, frozen="f")
    catalogue = Catalogue.of(events.read())
    assert (catalogue.frozen, catalogue.candidates, catalogue.promotions) == ("f" * 64, 3, 1)
    judged(events, bundle("c"), passed=False, against="a" * 64, frozen="e")
    catalogue = Catalogue.of(events.read())
    assert (catalogue.frozen, catalogue.candidates, catalogue.promotions) == ("e" * 64, 4, 1)


def test_an_entry_that_lacks_what_its_kind_needs_is_named(events: EventLog) -> None:
    broken = add(events, "packed", bundle="a" * 64)
    with pytest.raises(DamagedData, match=rf"the event log is damaged\n  {broken}: an entry of the log cannot be read"):
        Catalogue.of(events.read())
    assert audit(events.read()).first_broken == broken


def test_an_empty_log_is_whole(events: EventLog) -> None:
    found = audit(events.read())
    assert (found.entries, found.ok, found.first_broken) == (0, True, None)


def test_an_entry_that_was_given_a_new_hash_is_found_by_what_follows_it(events: EventLog) -> None:
    for letter in "abc":
        serve(events, letter)
    known = list(events.read())
    for place in range(len(known) - 1):
        forged = replace(known[place], why="forged")
        forged = replace(forged, hash=forged.sealed())
        assert audit([*known[:place], forged, *known[place + 1 :]]).first_broken == known[place].id
    forged = replace(known[3], prev="1" * 64)
    forged = replace(forged, hash=forged.sealed())
    assert audit([*known[:3], forged, *known[4:]]).first_broken == known[3].id


def test_a_missing_entry_is_found_at_the_one_after_it(events: EventLog) -> None:
    for letter in "ab":
        serve(events, letter)
    known = list(events.read())
    for place in range(len(known) - 1):
        assert audit([*known[:place], *known[place + 1 :]]).first_broken == known[place + 1].id


def test_a_record_against_an_older_champion_promotes_nobody_unless_a_person_overrules(events: EventLog) -> None:
    serve(events, "a")
    late = bundle("b")
    version, gate = versions.register(events, late, why="", who="test"), judged(events, late, against="a" * 64)
    serve(events, "c")
    message = (
        r"v2 may not serve on the strength of an older record\n.*expected one against cccccccccccc; got one against a"
    )
    with pytest.raises(GateRefused, match=message):
        versions.promote(events, version, gate=gate, why="", who="test")
    assert champion(events) == "v3"
    versions.promote(events, version, gate=gate, why="", who="test", overruled="known to be good")
    assert champion(events) == "v2"
