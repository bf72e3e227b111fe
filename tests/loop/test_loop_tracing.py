"""What the log knows: where an answer comes from, who served, and that a forgotten subject leaves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.captured import Ward
from tests.support.workspace import opened, promote

from rounds.capture.capture import pseudonym
from rounds.core.errors import DamagedData, UnknownId
from rounds.imaging.packed import Films
from rounds.loop import labelling, measuring, ruling, tracing


def test_an_answer_leads_to_its_bundle_run_data_code_and_image(ward: Ward) -> None:
    (row,) = ward.send(1)
    ward.label([row])
    bundle = measuring.open_bundle(ward.ports, "champion")
    found = tracing.trace(ward.ports, row.prediction)
    assert found.pop("label")["label"] == ward.truth[row.prediction]
    manifest = Path(found.pop("manifest"))
    assert manifest.is_file()
    assert Films(manifest.parent).dataset.digest == bundle.parents.data
    assert ward.ports.blobs.get(found["image"])
    assert found.pop("at").endswith("Z")
    assert found == {
        "prediction": row.prediction,
        "class": row.label,
        "version": "v1",
        "overruled": None,
        "bundle": bundle.digest,
        "variant": "trained",
        "parent": None,
        "run": "run-tiny-0",
        "config": "c" * 64,
        "data": bundle.parents.data,
        "code": "tiny",
        "image": row.image,
        "image_gone": False,
    }


def test_a_bundle_whose_data_never_were_here_is_traced_without_a_manifest(home: Path) -> None:
    promote(home)
    with opened(home) as ports:
        (row,) = Ward(ports).send(1)
        found = tracing.trace(ports, row.prediction)
    assert (found["data"], found["manifest"], found["label"]) == ("d" * 64, None, None)


def test_an_unknown_answer_is_named(ward: Ward) -> None:
    with pytest.raises(
        UnknownId, match=r"no prediction 'p_0'\n  p_0: no such prediction; expected the id of an answer"
    ):
        tracing.trace(ward.ports, "p_0")


def test_the_log_says_who_serves_and_is_whole(ward: Ward) -> None:
    found = tracing.models(ward.ports)
    (version,) = found["versions"]
    assert (found["champion"], version["version"], version["until"], version["provisional"]) == (
        "v1",
        "v1",
        None,
        False,
    )
    events = tracing.history(ward.ports)["events"]
    assert [event["kind"] for event in events] == ["policy", "prepared", "packed", "registered", "gated", "promoted"]
    assert tracing.audit(ward.ports) == {"entries": 6, "ok": True, "first_broken": None}


def test_a_forgotten_subject_leaves_nothing(ward: Ward) -> None:
    rows = ward.send(20, subjects=["anna", "ben"] * 10)
    ward.label(rows)
    done = labelling.erase(ward.ports, "anna")
    name = pseudonym(ward.ports.secret, "anna")
    assert done == {"subject": name, "predictions": 10, "images": 10}
    gone, kept = rows[::2], rows[1::2]
    assert [row.prediction for row in ward.ports.captures.since(0)] == [row.prediction for row in kept]
    assert set(ward.ports.captures.labels()) == {row.prediction for row in kept}
    assert not any(ward.ports.blobs.has(row.image) for row in gone)
    assert all(ward.ports.blobs.has(row.image) for row in kept)
    (event,) = ward.ports.events.read(kinds=("erased",))
    assert event.evidence == done
    with pytest.raises(UnknownId, match="no such subject"):
        labelling.erase(ward.ports, "anna")
    with pytest.raises(UnknownId, match="no prediction"):
        tracing.trace(ward.ports, gone[0].prediction)


def test_rules_that_cannot_be_read_are_named(ward: Ward) -> None:
    event = ward.ports.events.append("policy", who="nobody", why="", evidence={"rules": {"gate": {"alpha_": 1}}})
    with pytest.raises(DamagedData, match=rf"the rules in force are damaged\n  {event.id}: the rules cannot be read"):
        ruling.in_force(ward.ports)
