"""The watch over inputs: one film a subject, the same findings whoever looks, an alarm that stays, and what moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from tests.support.bundles import tiny_bundle, tiny_films

from rounds.core.errors import OurFault
from rounds.core.records import Bundle, Captured, Finding
from rounds.core.specs import MonitorSpec
from rounds.monitor import memory
from rounds.monitor.watch import Watched, watch
from rounds.runtime.bundle import Reference, reference
from rounds.runtime.predictor import Predictor
from rounds.runtime.scores import scores
from rounds.runtime.verdict import verdicts

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SPEC = MonitorSpec()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundles"), films=400)


@pytest.fixture(scope="module")
def known(bundle: Bundle) -> Reference:
    return reference(bundle)


def captured(bundle: Bundle, n: int, *, seed: int, first: int = 1, brightness: float = 1.0) -> list[Captured]:
    films = tiny_films(n, seed=seed, brightness=brightness)
    outputs = Predictor(bundle).answer(films)
    table = scores(bundle, films, outputs)
    said = verdicts(bundle, outputs, table)
    return [
        Captured(
            prediction=f"p{first + i}", at=NOW - timedelta(hours=2) + timedelta(seconds=first + i),
            bundle=bundle.digest, version="v1", image=f"image{first + i}", label=bundle.classes[said.label[i]],
            probabilities=tuple(said.probabilities[i].tolist()), logits=tuple(outputs.logits[i].tolist()),
            scores=tuple(table[i].tolist()), audited=False, ms=1.0, subject=f"subject{first + i}", seq=first + i,
        )
        for i in range(n)
    ]  # fmt: skip


def look(
    rows: Sequence[Captured], bundle: Bundle, known: Reference, state: bytes | None = None, spec: MonitorSpec = SPEC
) -> Watched:
    return watch(rows, state, bundle=bundle, reference=known, spec=spec, now=NOW)


def drift(watched: Watched) -> Finding:
    return next(finding for finding in watched.findings if finding.kind == "drift")


def test_clean_films_raise_no_alarm(bundle: Bundle, known: Reference) -> None:
    found = drift(look(captured(bundle, 600, seed=10), bundle, known))
    assert (found.alarm, found.n, found.moved, found.since, found.harm) == (False, 600, (), None, "unknown")
    assert found.log_e < found.limit
    assert found.controlled
    assert found.at == NOW
    assert found.why == "600 first films of subjects, 0 repeated ones left out"


def test_a_darker_scanner_is_found_with_what_moved_and_since_when(bundle: Bundle, known: Reference) -> None:
    rows = captured(bundle, 500, seed=11) + captured(bundle, 200, seed=12, first=501, brightness=0.75)
    found = drift(look(rows, bundle, known))
    assert found.alarm
    assert found.log_e >= found.limit
    assert found.since is not None
    assert 400 <= found.since <= 600
    assert "exposure" in [moved.what for moved in found.moved]
    assert next(moved.size for moved in found.moved if moved.what == "exposure") < -0.3
    assert rows[500].at < found.at < rows[-1].at


def test_whoever_looks_and_however_often_finds_the_same(bundle: Bundle, known: Reference) -> None:
    rows = captured(bundle, 200, seed=13) + captured(bundle, 200, seed=14, first=201, brightness=0.6)
    once, state, alarms = look(rows, bundle, known), None, []
    for end in (1, 100, 300, 350, 400):
        again = look(rows[:end], bundle, known, state)
        state = again.state
        alarms += [drift(again)] if drift(again).alarm else []
    assert once == again
    assert len(alarms) >= 2
    assert {(finding.id, finding.at, finding.since) for finding in alarms} == {
        (drift(once).id, drift(once).at, drift(once).since)
    }


def test_a_subject_or_an_image_counts_once_and_other_bundles_not_at_all(bundle: Bundle, known: Reference) -> None:
    rows = captured(bundle, 6, seed=15)
    rows[1] = replace(rows[1], subject=rows[0].subject)
    rows[2] = replace(rows[2], image=rows[0].image)
    rows[3] = replace(rows[3], image=known.images[5])
    rows[4] = replace(rows[4], bundle="another")
    found = drift(look(rows, bundle, known))
    assert found.n == 5
    assert found.why == "2 first films of subjects, 3 repeated ones left out"


def test_films_without_a_subject_are_thinned_and_the_finding_says_what_it_assumes(
    bundle: Bundle, known: Reference
) -> None:
    rows = [replace(row, subject=None) for row in captured(bundle, 10, seed=16)]
    found = drift(look(rows, bundle, known, spec=replace(SPEC, keep_one_in=3)))
    assert found.n == 10
    assert found.why == (
        "3 first films of subjects, 0 repeated ones left out; 10 films came without a subject: "
        "the rate assumes that each is of another one; one in 3 of these was kept"
    )


def test_a_finding_past_the_horizon_is_marked_uncontrolled(bundle: Bundle, known: Reference) -> None:
    found = drift(look(captured(bundle, 30, seed=17), bundle, known, spec=replace(SPEC, horizon=20)))
    assert not found.controlled
    assert found.why.endswith("the horizon of 20 films is used up: the stated rate no longer holds")


def test_a_class_mix_outside_the_declared_band_is_found_beside_the_scores(bundle: Bundle, known: Reference) -> None:
    rows = [row for row in captured(bundle, 1200, seed=18) if row.label == bundle.classes[1]]
    found = drift(look(rows, bundle, known, spec=replace(SPEC, mix_low=0.3, mix_high=0.7)))
    assert found.alarm
    assert [moved.size for moved in found.moved if moved.what == "class_mix"] == pytest.approx([0.3])
    assert not drift(look(rows, bundle, known)).alarm


def test_answers_without_whole_scores_are_left_out_and_told(bundle: Bundle, known: Reference) -> None:
    rows = captured(bundle, 4, seed=19)
    rows[1] = replace(rows[1], scores=(float("nan"), *rows[1].scores[1:]))
    rows[2] = replace(rows[2], label="fracture")
    watched = look(rows, bundle, known)
    assert drift(watched).n == 4
    assert drift(watched).why.startswith("2 first films")
    told = watched.findings[1]
    assert (told.kind, told.alarm, told.n) == ("integrity", True, 4)
    assert told.why == "2 answers have no whole scores or no known class: p2, p3"


def test_another_bundle_begins_anew(bundle: Bundle, known: Reference, tmp_path: Path) -> None:
    first = look(captured(bundle, 20, seed=20), bundle, known)
    other = tiny_bundle(tmp_path, seed=5)
    again = look(captured(other, 7, seed=21), other, reference(other), first.state)
    assert drift(again).n == 7


def test_what_is_remembered_is_bounded(bundle: Bundle, known: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SEEN", 100)
    watched = look(captured(bundle, 200, seed=22), bundle, known)
    assert len(memory.Memory.load(watched.state).seen) == 100


def test_bytes_that_are_no_state_are_refused(bundle: Bundle, known: Reference) -> None:
    with pytest.raises(OurFault, match=r"the state of the watch cannot be read\n  watch: not the state of a watch"):
        look([], bundle, known, b'{"seen": ""}')


def test_ten_seeds_find_a_mild_change_after_a_thousand_clean_films_and_alarm_never_before(
    bundle: Bundle, known: Reference
) -> None:
    delays = []
    for seed in range(10):
        rows = captured(bundle, 1000, seed=100 + seed)
        rows += captured(bundle, 300, seed=200 + seed, first=1001, brightness=0.8)
        state = look(rows[:1000], bundle, known)
        assert not drift(state).alarm
        found = drift(look(rows, bundle, known, state.state))
        assert found.alarm
        delays.append(sum(row.at <= found.at for row in rows[1000:]))
    assert np.median(delays) < 250
