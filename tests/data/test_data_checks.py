"""All checks of a prepared data set: every kind of finding, whole, and quiet where nothing is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from tests.support.planted import brighter, jpeg, kept, phantoms, resized

from rounds.core.records import DatasetVersion
from rounds.data import looks
from rounds.data.findings import Finding, Survey
from rounds.data.mislabelled import doubts
from rounds.data.prepare import CHEST_XRAY_SUBJECT
from rounds.data.split import groups_of
from rounds.data.survey import survey
from rounds.imaging.fit import encode_png
from rounds.imaging.packed import Film, Films
from rounds.imaging.phantom import draw
from rounds.imaging.texture import TEXTURED


def of(found: Survey, kind: str) -> Finding:
    (finding,) = [finding for finding in found.findings if finding.kind == kind]
    return finding


def test_clean_phantoms_have_no_leak_and_no_fault(tmp_path: Path) -> None:
    found = survey(kept(tmp_path, phantoms()))
    assert found.leaks == ()
    assert {finding.kind for finding in found.findings} <= {"class_small", "labels_in_doubt"}
    assert [(row["split"], row["against"], row["measure"]) for row in found.shifts[:2]] == [
        ("val", "train", "exposure"),
        ("val", "train", "contrast"),
    ]
    assert len(found.shifts) == 12
    assert not any(row["moved"] for row in found.shifts)
    assert found.public()["ok"]


def test_every_kind_of_finding_names_its_films(tmp_path: Path) -> None:
    films = phantoms()
    pixels = [film.pixels for film in draw(240, seed=11, size=64)]
    train = [i for i, film in enumerate(films) if film.split == "train"]
    one, two, three, four, five = train[0], train[8], train[16], train[24], train[32]
    other = {"normal": "opacity", "opacity": "normal"}

    def planted(data: bytes, like: int, split: str, name: str, label: str = "") -> Film:
        return Film(data, label or films[like].label, name, split, name)

    more = [
        planted(films[one].data, one, "test", "exact"),
        planted(jpeg(pixels[two], 80), two, "val", "near"),
        planted(encode_png(pixels[three]), three, "train", "twice"),
        planted(encode_png(brighter(pixels[four], 2)), four, "train", "wrong", other[films[four].label]),
        planted(encode_png(np.full((64, 64), 9, np.uint8)), one, "train", "blank"),
        planted(encode_png(255 - pixels[five]), five, "train", "negative"),
        planted(encode_png(resized(pixels[five], 64)[:20]), five, "train", "wide"),
        planted(encode_png(resized(pixels[train[40]], 512)), train[40], "train", "large"),
        Film(encode_png(pixels[train[41]][::-1]), "normal", films[one].subject, "val", "whose"),
    ]
    found = survey(kept(tmp_path, [*films, *more]))
    exact = of(found, "copies_across_splits")
    assert exact.severity == "leak"
    assert exact.pairs == (
        {
            "files": [films[one].name, "exact"],
            "splits": ["train", "test"],
            "labels": [films[one].label] * 2,
            "how": "the same pixels",
            "difference": 0.0,
        },
    )
    (near,) = of(found, "near_copies_across_splits").pairs
    assert (near["files"], near["how"]) == ([films[two].name, "near"], "encoded again")
    assert 0 < near["difference"] < 4
    subjects = of(found, "subjects_across_splits")
    assert {pair["files"][1] for pair in subjects.pairs} == {"whose"}
    assert set(found.leaks) == {tuple(pair["files"]) for pair in (*exact.pairs, near, *subjects.pairs)}
    (contradiction,) = of(found, "contradictory_labels").pairs
    assert set(contradiction["files"]) == {films[four].name, "wrong"}
    assert [film["file"] for film in of(found, "blank").films] == ["blank"]
    assert [film["file"] for film in of(found, "inverted").films] == ["negative"]
    assert [film["file"] for film in of(found, "odd_shape").films] == ["wide"]
    assert "large" in {film["file"] for film in of(found, "odd_size").films}
    assert [sorted(pair["files"]) for pair in of(found, "copies").pairs] == [sorted([films[three].name, "twice"])]
    assert found.counts() == {"leak": 3, "fault": 2, "note": len(found.findings) - 5}
    assert [finding.severity for finding in found.findings[:5]] == ["leak"] * 3 + ["fault"] * 2
    assert not found.public()["ok"]


def test_a_scanner_that_moved_between_splits_is_told_with_its_size(tmp_path: Path) -> None:
    films = phantoms(400)
    pixels = {film.name: film.pixels for film in draw(400, seed=11, size=64)}
    darker = [
        Film(encode_png((pixels[film.name] * 0.8).astype(np.uint8)), film.label, film.subject, film.split, film.name)
        if film.split == "test"
        else film
        for film in films
    ]
    found = survey(kept(tmp_path, darker))
    shift = of(found, "shift")
    moved = {row["measure"]: row for row in shift.values["rows"]}
    assert re.match(r"test differs from train: exposure by -\d", shift.what)
    assert moved["exposure"]["p_corrected"] < 0.001
    assert moved["exposure"]["size"] < -1
    assert moved["exposure"]["low"] < moved["exposure"]["superiority"] < moved["exposure"]["high"] < 0.3
    assert all(row["split"] == "test" for row in found.shifts if row["moved"])


def test_classes_that_are_rare_or_absent_are_told(tmp_path: Path) -> None:
    films = [film for film in phantoms(400) if film.label == "normal" or film.split == "train"]
    rare = [film for film in films if film.label == "opacity"][:12]
    found = survey(kept(tmp_path, [film for film in films if film.label == "normal"] + rare))
    assert of(found, "class_absent").severity == "fault"
    assert of(found, "class_absent").what == "classes are absent: 0 opacity in val; 0 opacity in test"
    assert "12 opacity in train" in of(found, "class_small").what
    assert "times the films of the smallest, opacity" in of(found, "class_imbalance").what
    assert found.skipped == ("labels in doubt: a class has too few subjects to learn from",)


def test_a_second_look_decodes_nothing_and_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = kept(tmp_path, phantoms(80))
    first, copies = looks.seen(dataset)
    monkeypatch.setattr(looks, "look_at", None)
    again, copies_again = looks.seen(dataset)
    assert again == first
    assert copies_again == copies
    (dataset.path / "cache" / "looks-1.npz").write_bytes(b"cut short")
    monkeypatch.undo()
    assert looks.seen(dataset)[0] == first


def flipped(labels: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Two classes with a share of labels exchanged, and which were."""
    wrong = np.random.default_rng(1).random(len(labels)) < share
    return np.where(wrong, 1 - labels, labels), wrong


def recall_and_precision(dataset: DatasetVersion, share: float = 0.05) -> tuple[float, float]:
    """Of planted wrong labels the share that is doubted, and the share of doubted films that were planted."""
    films = Films(dataset.path)
    rows = films.rows()
    labels, wrong = flipped(rows.labels, share)
    groups = groups_of([(subject,) for subject in rows.subjects], list(map(str, labels)), rows.digests)
    found = doubts(films.pixels(TEXTURED), labels, groups, 2)
    assert found is not None
    said = np.zeros(len(labels), bool)
    said[[doubt.film for doubt in found.films]] = True
    recall, precision = float((said & wrong).sum() / wrong.sum()), float((said & wrong).sum() / said.sum())
    print(f"{len(labels)} films: recall {recall:.2f}, precision {precision:.2f}, agreement {found.agreement:.3f}")
    return recall, precision


def test_a_weak_classifier_doubts_planted_wrong_labels_more_than_others(tmp_path: Path) -> None:
    recall, precision = recall_and_precision(kept(tmp_path, phantoms(1200)))
    assert recall > 0.45
    assert precision > 0.13


def test_most_planted_wrong_labels_of_real_films_are_doubted(datasets: Path, tmp_path: Path) -> None:
    from rounds.core.specs import DataSpec
    from rounds.data.prepare import prepare

    spec = DataSpec(source=str(datasets / "pneumoniamnist_trainval.npz"), name="set", subject=CHEST_XRAY_SUBJECT)
    recall, precision = recall_and_precision(prepare(spec, folder=tmp_path).dataset)
    assert recall > 0.55
    assert precision > 0.75
