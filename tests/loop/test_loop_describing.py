"""What the cards say: facts from records and the log, statements of people, and warnings that follow from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.support.bundles import shifted_threshold
from tests.support.captured import Ward, dataset_in, packed
from tests.support.workspace import opened

from rounds.core.errors import BadRequest
from rounds.core.specs import DataSpec
from rounds.data.known import known
from rounds.loop import describing, exchange, intake, measuring, statements
from rounds.loop.limits import model_limits


def test_a_data_card_holds_what_was_made_found_and_said(home: Path) -> None:
    with opened(home) as ports:
        intake.prepare(ports, DataSpec("phantom:n=240,size=32,seed=1", "phantoms", min_per_class=5))
        statements.say_of_data(ports, "phantoms", {"labelled": "the program that drew them"}, who="ada")
        facts = describing.data_card(ports, "phantoms")
    assert facts["prepared"] | {"at": "", "why": ""} == {
        "at": "",
        "kind": "prepared",
        "who": "prepare",
        "why": "",
        "sources": ["phantom:n=240,size=32,seed=1"],
        "taken": 240,
        "refused": 0,
        "reasons": {},
        "repaired": {},
        "burned_in": False,
    }
    assert facts["counts"]["images"] == 240
    assert [one["of"] for one in facts["known"]] == ["phantom:n=240,size=32,seed=1"]
    assert (facts["said"]["labelled"]["text"], facts["said"]["labelled"]["by"]) == ("the program that drew them", "ada")
    assert facts["said"]["licence"] is None
    assert facts["cost"]["seconds"] > 0
    assert facts["nameless"] == 0
    assert not [text for text in facts["limits"] if "labels, and how" in text or "licence" in text]
    assert any(text.startswith("Of whom, where and when") for text in facts["limits"])


def test_files_that_were_refused_are_counted_by_reason(home: Path, tmp_path: Path) -> None:
    from tests.support.planted import phantom_folders

    root = phantom_folders(tmp_path / "in", 160, splits=())
    next(root.rglob("*.png")).with_name("broken.png").write_bytes(b"no image")
    with opened(home) as ports:
        intake.prepare(ports, DataSpec(str(root), "set", min_per_class=5))
        made = describing.data_card(ports, "set")["prepared"]
    assert (made["taken"], made["refused"], sum(made["reasons"].values())) == (160, 1, 1)
    assert "broken" not in str(made)


def test_what_was_said_of_an_earlier_version_stands_until_it_is_said_anew_or_taken_back(home: Path) -> None:
    with opened(home) as ports:
        old = dataset_in(ports, seed=1, splits={"test": 20})
        statements.say_of_data(ports, "tiny", {"licence": "CC0", "contact": "ada"})
        dataset_in(ports, seed=2, splits={"test": 20})
        carried = statements.say_of_data(ports, "tiny", {})["said"]
        assert carried["licence"] | {"at": ""} == {"text": "CC0", "by": "operator", "at": "", "of": old.digest}
        new = statements.say_of_data(ports, "tiny", {"licence": "CC BY 4.0", "contact": ""})["said"]
        assert (new["licence"]["text"], new["contact"]) == ("CC BY 4.0", None)
        assert statements.say_of_data(ports, old.digest, {})["said"]["licence"]["text"] == "CC0"


def test_what_no_card_asks_is_refused_by_name(home: Path) -> None:
    with opened(home) as ports:
        dataset_in(ports, splits={"test": 20})
        with pytest.raises(BadRequest) as refused:
            statements.say_of_data(ports, "tiny", {"colour": "blue"})
        assert refused.value.faults[0].where == "colour"
        assert [event.kind for event in ports.events.read()] == ["prepared"]


def test_a_model_card_holds_the_newest_report_of_each_split_and_its_service(ward: Ward) -> None:
    ports = ward.ports
    for split in ("test", "val", "test"):
        measuring.evaluate(ports, "champion", "tiny", split, harmed=split == "val")
    facts = describing.model_card(ports, "champion")
    assert [(one["name"], one["split"], one["own"]) for one in facts["evaluations"]] == [
        ("tiny", "test", True),
        ("tiny", "val", True),
    ]
    assert facts["evaluations"][0]["metrics"]["auc"]["low"] < facts["evaluations"][0]["metrics"]["auc"]["value"]
    assert facts["robustness"]["split"] == "val"
    assert (facts["version"], facts["champion"], facts["gate"]["passed"]) == ("v1", True, True)
    assert [event["kind"] for event in facts["history"]] == ["packed", "registered", "gated", "promoted"]
    assert facts["cost"]["measuring"]["times"] == 3
    assert (facts["run"], facts["policy"], facts["data"]["name"]) == (None, None, "tiny")
    assert set(facts["files"]) == {"SHA256SUMS", "bundle.json", "model.onnx", "reference.parquet"}
    assert any(text.startswith("It was never measured on films of another source") for text in facts["limits"])


def test_a_model_on_whose_films_nothing_is_known_says_so(home: Path, tmp_path: Path) -> None:
    with opened(home) as ports:
        bundle = packed(ports, dataset_in(ports, splits={"train": 60, "test": 60}))
        moved = shifted_threshold(bundle, tmp_path, 0.7)
        statements.say_of_model(ports, bundle.digest, {"purpose": "to teach"})
        assert exchange.take_bundle(ports, moved, "test").parents.bundle == bundle.digest
        facts = describing.model_card(ports, moved.digest)
    assert facts["evaluations"] == []
    assert facts["said"]["purpose"]["of"] == bundle.digest
    assert facts["limits"] == [
        "The training run is not recorded in this workspace: how the model was trained is not known here.",
        "It was never measured: rounds evaluate measures it, and nothing can be said of its quality before.",
        "No gate has judged it: it may not serve yet.",
    ]


def test_slices_that_are_worse_or_too_small_are_warned_of(ward: Ward) -> None:
    measuring.evaluate(ward.ports, "champion", "tiny", "test")
    facts = describing.model_card(ward.ports, "champion")
    worse = {"attribute": "site", "value": "north", "flagged": True, "p_corrected": 0.01, "difference": {"value": -0.2}}
    small = {"attribute": "site", "value": "south", "flagged": False, "p_corrected": None, "difference": None}
    facts["evaluations"][0]["slices"] = [worse, small]
    limits = model_limits(facts)
    assert "It is worse where site is north: accuracy -0.200 against the rest." in limits
    assert "Too few subjects to tell whether it is worse for: site south." in limits


def test_known_sources_bring_their_citation_and_licence() -> None:
    found = known("medmnist:pneumoniamnist_64")
    assert found is not None
    assert found["licence"] == "CC BY 4.0"
    assert "10.17632/rscbjbr9sj" in found["source"]
    derma = known("medmnist:dermamnist")
    assert derma is not None
    assert derma["licence"] == "CC BY-NC 4.0"
    assert known("films/") is None


def test_a_card_of_dicom_films_does_not_say_where_they_lay(home: Path, tmp_path: Path) -> None:
    pytest.importorskip("pydicom", reason="needs the extra: pip install 'rounds[dicom]'")
    from tests.support.dicoms import dicom

    root = tmp_path / "Doe, Jane"
    root.mkdir()
    random = np.random.default_rng(0)
    for number, sex in enumerate("FM"):
        pixels = random.integers(0, 4096, (40, 32)).astype(np.uint16)
        elements = {"PatientID": f"P{number}", "PatientSex": sex, "BurnedInAnnotation": "NO"}
        (root / f"{number}.dcm").write_bytes(dicom(pixels, BitsStored=12, **elements))
    with opened(home) as ports:
        intake.prepare(ports, DataSpec(f"dicom:{root}", "set", labels="tag:PatientSex"))
        facts = describing.data_card(ports, "set")
    assert (facts["nameless"], facts["prepared"]["sources"]) == (2, ["a DICOM tree"])
    assert "Doe" not in str(facts)
