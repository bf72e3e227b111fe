"""What the facts of a card warn of: sentences that follow from them, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Below so many films of a class an interval is too wide to promise much: 50 films leave +-0.1 around 0.85.
FEW_FILMS = 50
# A loss of accuracy that a person would notice.
HARM = 0.05
Facts = Mapping[str, Any]


def data_limits(facts: Facts) -> list[str]:
    """The warnings of a data card, from its other facts."""
    return [*_about_subjects(facts["counts"]), *_about_checks(facts), *_about_knowledge(facts)]


def model_limits(facts: Facts) -> list[str]:
    """The warnings of a model card, from its other facts."""
    return [
        *_about_origin(facts),
        *_about_measuring(facts),
        *_about_slices(facts["evaluations"]),
        *_about_service(facts),
    ]


def _about_subjects(counts: Facts) -> Iterator[str]:
    if not counts["subjects_known"]:
        yield (
            "Whose film each is, is not known: every film counts as its own subject. If some people have several "
            "films, "
            "these may stand in two splits, and intervals come out too narrow."
        )
    for split, told in counts["splits"].items():
        few = [f"{name} ({n})" for name, n in told["classes"].items() if n < FEW_FILMS]
        if few:
            yield (
                f"In {split} there are under {FEW_FILMS} films of {_listed(few)}: what is measured there is uncertain."
            )


def _about_checks(facts: Facts) -> Iterator[str]:
    grave = [one for one in facts["checks"] if one["severity"] != "note"]
    for one in grave:
        what = one["what"]
        yield f"The checks found a {one['severity']}: {what}."
    if any(one["kind"] == "labels_in_doubt" for one in facts["checks"]):
        yield "Some labels are in doubt (see the checks); none was changed."
    if any(one["kind"] == "shift" for one in facts["checks"]):
        yield (
            "The splits differ from each other (see the checks): results on one do not carry over to another as "
            "they are."
        )


def _about_knowledge(facts: Facts) -> Iterator[str]:
    said, known = facts["said"], facts["known"]
    if not said["licence"] and not known:
        yield "The licence is not stated: whether these films may be used, shown or passed on has to be settled first."
    if not said["labelled"]:
        yield "Who gave the labels, and how, is not stated: how right they are is unknown."
    if not said["collected"]:
        yield "Of whom, where and when the films were taken is not stated: whom they stand for is unknown."
    if not facts["attributes"]:
        yield (
            "The films bear no attributes such as site, age or sex: whether a model is worse for some people than for "
            "others cannot be measured with them."
        )
    if facts["prepared"] is None:
        yield "The data set was brought along: what its makers refused or repaired is not recorded here."


def _about_origin(facts: Facts) -> Iterator[str]:
    if facts["imported"]:
        yield (
            "The model was trained elsewhere: whether it has seen films of the test split in training is not "
            "known here."
        )
        for name, why in facts["imported"].get("absent", {}).items():
            yield f"It has no {name}: {why}."
    elif facts["run"] is None:
        yield "The training run is not recorded in this workspace: how the model was trained is not known here."
    data = facts["data"]
    if data is None:
        yield "The data set that it came of is not in this workspace."
    elif not data["subjects_known"]:
        yield (
            "Whose film each training film is, is not known: films of one person may stand in training and in "
            "test, and "
            "its measured quality may be too high."
        )


def _about_measuring(facts: Facts) -> Iterator[str]:
    measured = facts["evaluations"]
    if not measured:
        yield "It was never measured: rounds evaluate measures it, and nothing can be said of its quality before."
        return
    if not any(one["split"] == "test" for one in measured):
        yield "It was measured only on films that took part in making it, so its measured quality is too high."
    if all(one["own"] for one in measured):
        yield (
            "It was never measured on films of another source: how it does at another hospital, on another "
            "scanner or in "
            "another year is unknown."
        )
    for one in measured:
        few = [f"{name} ({sum(row)})" for name, row in zip(one["classes"], one["confusion"], strict=True)]
        few = [text for text, row in zip(few, one["confusion"], strict=True) if sum(row) < FEW_FILMS]
        if few:
            where = f"{one['name'] or one['data'][:12]}, {one['split']}"
            yield f"On {where} it was measured with under {FEW_FILMS} films of {_listed(few)}."
    yield from _about_harm(facts["robustness"])


def _about_harm(found: Facts | None) -> Iterator[str]:
    if found is None:
        yield (
            "How it does on blurred, noisy, darker or turned films was not measured: rounds evaluate --robustness does."
        )
        return
    clean = found["clean"].get("accuracy")
    hurt = [
        f"{kind} {point['severity']:g}"
        for kind, curve in found["curves"].items()
        for point in curve["points"]
        if clean and "accuracy" in point and point["accuracy"]["high"] < clean["value"] - HARM
    ]
    if hurt:
        yield f"Its accuracy falls by more than {HARM:g} on films that were harmed: {_listed(hurt)}."


def _about_slices(measured: Sequence[Facts]) -> Iterator[str]:
    rows = [row for one in measured for row in one["slices"]]
    if measured and not rows:
        yield (
            "No slices were measured, since the films bear no attributes with a few values: whether it is worse "
            "for some "
            "people than for others is unknown."
        )
    for row in rows:
        if row["flagged"]:
            gap = f"{row['difference']['value']:+.3f}"
            yield f"It is worse where {row['attribute']} is {row['value']}: accuracy {gap} against the rest."
    untested = [f"{row['attribute']} {row['value']}" for row in rows if row["p_corrected"] is None]
    if untested:
        yield f"Too few subjects to tell whether it is worse for: {_listed(untested)}."


def _about_service(facts: Facts) -> Iterator[str]:
    gate = facts["gate"]
    if gate is None:
        yield "No gate has judged it: it may not serve yet."
    elif not gate["passed"]:
        yield "The gate refused it the last time that it was asked."
    for stint in facts["service"]:
        if stint["overruled"]:
            yield f"A person put it in service against the gate's refusal, for this reason: {stint['overruled']}"
    if facts["alarms"]:
        yield f"The watch raised {len(facts['alarms'])} alarms while it served; the last: {facts['alarms'][-1]['why']}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
