"""Labels that come later: the good ones kept, each other one refused by row and reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rounds.capture.capture import Attached, attach, audited, erase, pseudonym, read_labels
from rounds.core.errors import BadLabel, UnknownId
from rounds.core.ids import from_rfc3339
from rounds.core.ports import Ports
from rounds.core.records import Captured, Label
from rounds.stores.memory import memory_ports

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
CLASSES = ("normal", "opacity")
SECRET = "a key of the tests' own"


def film(name: str, image: str, subject: str | None = None, reference: str | None = None) -> Captured:
    scores = ((0.5, 0.5), (0.0, 0.0), (0.1,))
    return Captured(name, NOW, "b", "v1", image, "normal", *scores, True, 1.0, reference, subject)


@pytest.fixture
def ports(tmp_path: Path) -> Ports:
    opened = memory_ports(tmp_path, secret=SECRET, clock=lambda: NOW)
    opened.captures.record(
        [
            film("p1", opened.blobs.put(b"1"), pseudonym(SECRET, "ann"), "R1"),
            film("p2", opened.blobs.put(b"2"), pseudonym(SECRET, "ann"), "R1"),
            film("p3", opened.blobs.put(b"3"), pseudonym(SECRET, "bob")),
            film("p4", opened.blobs.put(b"2"), pseudonym(SECRET, "bob")),
        ]
    )
    return opened


def test_a_pseudonym_is_the_keyed_hash_of_the_subject() -> None:
    assert pseudonym("key", "ann") == "9d77c3180ff81edfbc099a7e91843e41"
    assert len({pseudonym("key", "ann"), pseudonym("other", "ann"), pseudonym("key", "bob")}) == 3


def test_the_audit_draws_its_share_and_always_the_same_films() -> None:
    drawn = [audited("key", f"p{i}", 0.2) for i in range(5000)]
    assert drawn == [audited("key", f"p{i}", 0.2) for i in range(5000)]
    assert 900 <= sum(drawn) <= 1100
    assert drawn != [audited("other", f"p{i}", 0.2) for i in range(5000)]
    assert not any(audited("key", f"p{i}", 0.0) for i in range(100))
    assert all(audited("key", f"p{i}", 1.0) for i in range(100))


def test_good_labels_are_kept_and_every_other_row_is_refused_by_reason(ports: Ports) -> None:
    attach(ports, [Label("normal", "p4")], CLASSES, NOW)
    later = NOW + timedelta(seconds=1)
    given = [
        Label("opacity", "p3", by="reader", at=NOW),
        Label("normal", "none"),
        Label("normal", reference="none"),
        Label("cat", "p1"),
        Label("opacity", "p4"),
        Label("normal", "p4"),
        Label("normal", "p3"),
        Label("opacity", "p3"),
        Label("normal", "p1", at=later),
        Label("normal", "p1", "R1"),
        Label("normal"),
        "row is no label",
    ]
    found = attach(ports, given, CLASSES, NOW)
    reasons = [
        "unknown prediction 'none'",
        "unknown reference 'none'",
        "unknown class 'cat'; known are normal, opacity",
        "contradictory: already labelled normal",
        "duplicate: already labelled so",
        "contradictory: already labelled opacity",
        "duplicate: already labelled so",
        "dated in the future: 2026-03-04T12:00:01.000000Z",
        "one of prediction and reference is needed, and not both",
        "one of prediction and reference is needed, and not both",
        "row is no label",
    ]
    refused = [{"row": row, "reason": reason} for row, reason in enumerate(reasons, 1)]
    assert found == Attached(1, refused)
    assert found.public() == {"accepted": 1, "refused": refused}
    kept = {"p3": Label("opacity", "p3", None, "reader", NOW), "p4": Label("normal", "p4")}
    assert ports.captures.labels() == kept


def test_a_reference_labels_every_prediction_that_bears_it(ports: Ports) -> None:
    assert attach(ports, [Label("opacity", reference="R1")], CLASSES, NOW) == Attached(1, [])
    assert sorted(ports.captures.labels()) == ["p1", "p2"]


def test_a_reference_completes_what_is_labelled_in_part(ports: Ports) -> None:
    attach(ports, [Label("opacity", "p1", by="first")], CLASSES, NOW)
    assert attach(ports, [Label("opacity", reference="R1", by="second")], CLASSES, NOW).accepted == 1
    assert {name: label.by for name, label in ports.captures.labels().items()} == {"p1": "first", "p2": "second"}


def test_erasing_a_subject_leaves_no_row_no_label_no_file_and_one_event(ports: Ports) -> None:
    attach(ports, [Label("opacity", reference="R1"), Label("normal", "p3")], CLASSES, NOW)
    name = pseudonym(SECRET, "ann")
    answer = erase(ports, "ann", "operator")
    assert answer == {"subject": name, "predictions": 2, "images": 1}
    assert [row.prediction for row in ports.captures.since(0)] == ["p3", "p4"]
    assert sorted(ports.captures.labels()) == ["p3"]
    # the other subject has the same image as one of the erased films
    assert [ports.blobs.get(image) for image in ports.blobs] in ([b"2", b"3"], [b"3", b"2"])
    (event,) = ports.events.read()
    assert (event.kind, event.who, event.evidence) == ("erased", "operator", answer)
    assert "ann" not in str(event)


def test_an_erasure_that_was_cut_off_can_be_done_again(ports: Ports) -> None:
    for image in {row.image for row in ports.captures.by_reference("R1")}:
        ports.blobs.delete(image)
    assert erase(ports, "ann", "operator")["predictions"] == 2
    assert ports.captures.by_reference("R1") == []


def test_live_traffic_does_not_hide_what_is_erased(ports: Ports) -> None:
    class Busy:
        """Every look at the captures finds one more film of somebody else."""

        def __getattr__(self, name: str) -> object:
            ports.captures.record([film(f"new{ports.captures.count()}", ports.blobs.put(b"new"))])
            return getattr(ports.captures, name)

    assert erase(replace(ports, captures=Busy()), "ann", "operator")["predictions"] == 2  # type: ignore[arg-type]
    assert ports.captures.by_reference("R1") == []


def test_a_subject_of_whom_nothing_is_kept_is_unknown(ports: Ports) -> None:
    with pytest.raises(UnknownId, match=r"no such subject\n.*nothing is kept of this subject"):
        erase(ports, "carl", "operator")
    assert ports.events.head() == 0


def test_labels_are_read_from_csv_and_from_json_lines(tmp_path: Path) -> None:
    table, lines = tmp_path / "labels.csv", tmp_path / "labels.jsonl"
    table.write_text(
        "\ufeffprediction,reference,label,by,at\np1,,normal,reader,2026-03-04T12:00:00Z\n,R1,opacity,,\n", "utf-8"
    )
    lines.write_text(
        '{"prediction":"p1","label":"normal","by":"reader","at":"2026-03-04T12:00:00Z"}\n\n'
        '{"reference":"R1","label":"opacity","by":"a\u2028b"}\n',
        "utf-8",
    )
    first = Label("normal", "p1", None, "reader", from_rfc3339("2026-03-04T12:00:00Z"))
    assert read_labels(table) == [first, Label("opacity", None, "R1")]
    assert read_labels(lines) == [first, Label("opacity", None, "R1", "a\u2028b")]


def test_every_faulty_row_of_a_file_is_named_at_once(tmp_path: Path) -> None:
    lines = tmp_path / "labels.jsonl"
    deep = "[" * 100_000
    rows = [
        '{"prediction":"p1","label":"normal"}',
        "not json",
        '{"prediction":"p1"}',
        '{"label":"normal"}',
        '{"prediction":"p1","label":1}',
        '{"prediction":"p1","label":"normal","at":"2026-03-04T12:00:00"}',
        '{"prediction":"p1","label":"normal","subject":"ann"}',
        deep,
    ]
    lines.write_text("\n".join(rows), "utf-8")
    with pytest.raises(BadLabel, match=r"7 rows of labels.jsonl are no labels") as found:
        read_labels(lines)
    assert [(fault.where, fault.what) for fault in found.value.faults] == [
        ("labels.jsonl row 2", "unknown column not JSON"),
        ("labels.jsonl row 3", "label is missing"),
        ("labels.jsonl row 4", "one of prediction and reference is needed, and not both"),
        ("labels.jsonl row 5", "label must be text"),
        ("labels.jsonl row 6", "'2026-03-04T12:00:00' has no time zone"),
        ("labels.jsonl row 7", "unknown column subject"),
        ("labels.jsonl row 8", "unknown column not JSON"),
    ]


@pytest.mark.parametrize(
    ("name", "data"),
    [("none.csv", None), ("latin.csv", b"label\n\xe4\n"), ("huge.csv", b"label\n" + b"x" * 200_000)],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(BadLabel, match=rf"cannot read .*{name}"):
        read_labels(tmp_path / name)
