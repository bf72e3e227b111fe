"""Cures: who is counted, which films go where, and what must never be learned from."""

from __future__ import annotations

from collections import Counter

from tests.support.bundles import tiny_films
from tests.support.captured import CLASSES, Ward, kinds

from rounds.capture.capture import pseudonym
from rounds.core.records import Act, Decision
from rounds.imaging.decode import decode
from rounds.imaging.packed import Films
from rounds.loop import conduct, curing, intake, measuring
from rounds.registry.catalogue import Catalogue


def data_of(ward: Ward) -> str:
    return Catalogue.of(ward.ports.events.read()).bundle("champion").data


def test_audited_films_count_once_a_subject_and_in_their_order(ward: Ward) -> None:
    rows = ward.send(60, subjects=[f"s{i // 2}" for i in range(58)] + [None, None])
    ward.label(rows)
    labels = ward.ports.captures.labels()
    firsts = curing.audited_firsts(rows, labels)
    assert len({measuring.subject(row) for row in firsts}) == len(firsts)
    assert firsts == [row for row in rows if row in firsts]
    assert all(row.audited for row in firsts)
    assert curing.audited_firsts(rows, {}) == []


def test_too_few_labels_for_a_proof_are_asked_for_and_nothing_is_written(ward: Ward) -> None:
    rows = ward.send(100)
    ward.label_audited()
    observed = conduct.observe(ward.ports)
    assert observed is not None
    firsts = curing.audited_firsts(rows, observed.labels)[:70]
    asked = Decision(Act.RECALIBRATE, "a person asked")
    head = ward.ports.events.head()
    done = curing.recalibrate(ward.ports, observed.bundle, observed.reference, firsts, observed.labels, asked)
    left = len(firsts) - 40
    assert (done.act, done.why) == (
        Act.ASK_LABELS,
        f"a person asked; {left} labels for the proof where it needs 40",
    )
    assert ward.ports.events.head() == head


def test_what_is_collected_keeps_subjects_together_and_the_frozen_test_split_as_it_is(ward: Ward) -> None:
    base = intake.find(ward.ports, data_of(ward))
    before = ward.send(40)
    # films of a subject from before, of a training subject, of a test subject, new ones, and a copy of a test film
    copied = next(film for film in Films(base.path) if film.split == "test")
    known = ["subject-0", "train-0", copied.subject]
    recent = ward.send(330, subjects=[*known, *(f"new-{i}" for i in range(327))])
    recent += ward.answer(decode(copied.data)[None, None], [copied.label], ["stranger"])
    ward.label([*before, *recent])
    made = curing.collect(ward.ports, measuring.open_bundle(ward.ports, "champion"), recent)
    films = list(Films(made.path))
    split = {(film.subject, film.name): film.split for film in films}
    where: dict[str, set[str]] = {}
    for film in films:
        where.setdefault(film.subject, set()).add(film.split)
    name = {who: pseudonym(ward.ports.secret, who) for who in (*known, "stranger")}
    assert where[name["subject-0"]] == {"train"}
    assert where[name["train-0"]] == {"train"}
    assert name[copied.subject] not in where
    assert name["stranger"] not in where
    assert all(len(places) == 1 for places in where.values())
    assert {f.name for f in films if f.split == "test"} == {f.name for f in Films(base.path) if f.split == "test"}
    counts = Counter(place for (_, file), place in split.items() if file.startswith("captured/"))
    assert 90 < counts["calibration"] < 180
    assert 10 < counts["val"] < 70
    assert not [f for f in films if f.split == "calibration" and not f.name.startswith("captured/")]
    assert (made.name, made.subjects_known) == (base.name, True)


def test_few_new_films_leave_the_old_calibration_split(ward: Ward) -> None:
    rows = ward.send(50)
    ward.label(rows)
    made = curing.collect(ward.ports, measuring.open_bundle(ward.ports, "champion"), rows, "more")
    assert (made.name, dict(made.splits)) == ("more", {"train": 350, "val": 200, "calibration": 200, "test": 200})
    assert Catalogue.of(ward.ports.events.read()).dataset("more").digest == made.digest


def test_only_labels_that_no_training_has_seen_count_for_a_retrain(ward: Ward) -> None:
    bundle = measuring.open_bundle(ward.ports, "champion")
    assert curing.untrained(ward.ports, bundle) == 0
    rows = ward.send(30)
    ward.label(rows)
    films, truth = tiny_films(5, seed=99), [CLASSES[0]] * 5
    for _ in range(2):
        # the same images again are nothing new
        ward.label(ward.answer(films, truth, ["copies"] * 5))
    assert curing.untrained(ward.ports, bundle) == 35
    asked = Decision(Act.RETRAIN, "harm")
    done = curing.retrain(ward.ports, bundle, rows, asked, lambda _data, _overrides: bundle.digest)
    assert done.act is Act.RETRAIN
    assert curing.untrained(ward.ports, bundle) == 0
    assert kinds(ward.ports, "prepared", "retraining", "retrained") == [
        "prepared",
        "prepared",
        "retraining",
        "retrained",
    ]
    assert done.why == f"harm; {bundle.digest[:12]} waits for fresh films"
