"""What a data card says, in the order in which a reader asks; every fact comes from `loop.describing.data_card`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rounds.report.cards import Block, Card, Facts, Points, Section, Table, Text, listed, stated
from rounds.report.pages import count, moment, seconds

MEASURED = {
    "exposure": "mean gray, from 0 for black to 1 for white",
    "contrast": "how far dark and bright lie apart, from 0 to 1",
    "sharpness": "how steep edges are, against the contrast",
    "noise": "the grain, as a share of the range of gray",
    "geometry": "how far the bright parts lie from the middle",
}
SEVERITY = {"leak": "leak (training is refused)", "fault": "fault (to be mended)", "note": "note"}
Asked = Mapping[str, str]


def data_card(facts: Mapping[str, Any], asked: Asked) -> Card:
    """The card; `asked` are the questions that only people can answer, by heading."""
    counts = facts["counts"]
    whose = f"{count(counts['subjects'])} subjects" if counts["subjects_known"] else "subjects that are not known"
    parts = listed(f"{split} ({count(told['images'])})" for split, told in counts["splits"].items())
    return Card(
        kicker="data card",
        title=f"Data set {facts['name']}",
        lead=f"{count(counts['images'])} labelled films of {whose}, in {len(counts['classes'])} classes: "
        f"{listed(counts['classes'])}. They are split into {parts}.",
        meta=f"Digest {facts['digest']}, which names the content: other films, labels or splits have another. "
        f"Written {moment(facts['written'])} UTC.",
        sections=[
            Section("Where it comes from, and what it is for", _declared(facts, asked)),
            Section("What it holds", list(_content(counts))),
            Section("How it was made", list(_making(facts))),
            Section("What the checks found", list(_checks(facts))),
            Section("What else is known of each film", list(_attributes(facts["attributes"]))),
            Section("Privacy", [Text(text) for text in _privacy(facts)]),
            Section("Known limits", _limits(facts["limits"])),
            Section("What was made from it", list(_uses(facts))),
        ],
    )


def _declared(facts: Mapping[str, Any], asked: Asked) -> list[Block]:
    """What is published of known sources, then what people said."""
    rows = stated(facts["said"], asked, facts["digest"], f"rounds data describe {facts['name']}")
    published = [
        (f"Published {key} of {known['of']}", known[key]) for known in facts["known"] for key in ("source", "licence")
    ]
    if facts["known"]:
        given = {asked[key] for key in ("source", "licence") if not facts["said"].get(key)}
        rows = [row for row in rows if row[0] not in given]
    return [Facts([*published, *rows])]


def _content(counts: Mapping[str, Any]) -> Iterator[Block]:
    classes = counts["classes"]
    rows = [
        [split, *(count(told["classes"][name]) for name in classes), count(told["images"]), count(told["subjects"])]
        for split, told in counts["splits"].items()
    ]
    head = ["split", *classes, "all films", "subjects" if counts["subjects_known"] else "subjects (one a film)"]
    yield Table("Films of each class in each split", head, rows, frozenset(range(1, len(head))))
    yield Text(_split_words(counts["splits"]))
    width, height = counts["width"], counts["height"]
    same = width["min"] == width["max"] and height["min"] == height["max"]
    yield Text(
        f"Every film is {width['min']} by {height['min']} pixels."
        if same
        else f"Films are {width['min']:,} to {width['max']:,} pixels wide (median {width['median']:,.0f}) and "
        f"{height['min']:,} to {height['max']:,} high (median {height['median']:,.0f})."
    )
    measured = counts["measures"]
    rows = [
        [name, *(f"{measured[s][name]['mean']:.3f} ± {measured[s][name]['spread']:.3f}" for s in measured), words]
        for name, words in MEASURED.items()
    ]
    figures = frozenset(range(1, len(measured) + 1))
    caption = "How the films look at the size of a small network: mean and standard deviation over the films of a split"
    yield Table(caption, ["measure", *measured, "what it is"], rows, figures)


def _split_words(splits: Sequence[str] | Mapping[str, Any]) -> str:
    roles = {
        "train": "train teaches the network",
        "val": "val chooses the settings and the operating point",
        "calibration": "calibration sets the thresholds behind the stated error rates",
        "test": "test is kept for measuring",
    }
    return f"What the splits are for: {listed(roles[split] for split in splits)}. No subject is meant to stand in two."


def _making(facts: Mapping[str, Any]) -> Iterator[Block]:
    made = facts["prepared"]
    if made is None:
        yield Text("It was not prepared in this workspace, so how it was made is not recorded here.")
    else:
        yield Text(f"Entered on {moment(made['at'])} UTC by {made['who']}, from {_sources(made)}.")
        if made["refused"] is None:
            yield Text("What was refused or repaired on the way is not recorded.")
        else:
            yield Text(_refused(made))
            if made["reasons"]:
                rows = [[reason, count(n)] for reason, n in made["reasons"].items()]
                yield Table("Files that were refused, by reason", ["reason", "files"], rows, frozenset({1}))
            yield Text(_repaired(made["repaired"]))
    if facts["counts"]["notes"]:
        yield Text("What was done about splits, subjects and copies, as it was written down then:")
        yield Points([f"{note[:1].upper()}{note[1:]}." for note in facts["counts"]["notes"]])
    if facts["cost"]:
        cost = facts["cost"]
        yield Text(f"It took {seconds(cost['seconds'])}, and {seconds(cost['cpu_seconds'])} of computing.")


def _sources(made: Mapping[str, Any]) -> str:
    """Sources as they were typed; of a path on this machine its last part, since cards are passed on."""
    named = [source if "://" in source else source.rstrip("/").rpartition("/")[2] for source in made["sources"]]
    return listed(named) or f"what the log calls: {made['why']}"


def _refused(made: Mapping[str, Any]) -> str:
    if not made["refused"]:
        return f"All {count(made['taken'])} files could be read and were taken; none was refused."
    more = "" if made["reasons"] else " The reasons are not kept, since they may name a person's file."
    return f"{count(made['taken'])} files were taken and {count(made['refused'])} refused.{more}"


def _repaired(repaired: Mapping[str, int]) -> str:
    if not repaired:
        return "No film was moved or left out to mend a leak."
    told = listed(f"{count(n)} were {did}" for did, n in repaired.items())
    return f"To mend leaks, films were changed in place or left out: {told}."


def _checks(facts: Mapping[str, Any]) -> Iterator[Block]:
    yield Text(
        "Films are compared with each other by pixels, exactly and nearly (re-encoded, resized, shifted in gray, "
        "mirrored), within and across splits; subjects and labels are compared too, films that look odd are listed, "
        "and a small classifier, cross-validated by subject, names labels worth a second look."
    )
    if facts["checks"]:
        rows = [[SEVERITY[one["severity"]], one["what"], _extent(one)] for one in facts["checks"]]
        yield Table("What was found, the gravest first", ["kind", "finding", "films or pairs"], rows)
        yield Text(f"rounds data check {facts['name']} shows them with their pictures.")
    else:
        yield Text("Nothing was found.")
    if facts["unchecked"]:
        yield Text(f"Not checked: {'; '.join(facts['unchecked'])}.")


def _extent(one: Mapping[str, Any]) -> str:
    told = [f"{count(one[key])} {key}" for key in ("pairs", "films") if one[key]]
    return ", ".join(told) or "the whole split"


def _attributes(attributes: Sequence[Mapping[str, Any]]) -> Iterator[Block]:
    if not attributes:
        yield Text(
            "Nothing beside the label: no attribute such as site, scanner, age or sex came with the films. To bring "
            "some along, prepare from a table: rounds data prepare TABLE.csv --attributes site,sex."
        )
        return
    rows = [[one["name"], count(one["films"]), _values(one)] for one in attributes]
    caption = "Attributes, which become slices when a model is measured"
    yield Table(caption, ["attribute", "films that have it", "values"], rows, frozenset({1}))


def _values(one: Mapping[str, Any]) -> str:
    told = ", ".join(f"{value} ({count(n)})" for value, n in one["values"].items())
    rest = one["distinct"] - len(one["values"])
    return f"{told} and {count(rest)} more" if rest else told


def _privacy(facts: Mapping[str, Any]) -> Iterator[str]:
    nameless, images = facts["nameless"], facts["counts"]["images"]
    if nameless:
        share = "The films come" if nameless == images else f"{count(nameless)} films come"
        yield (
            f"{share} from DICOM files. Subjects and films bear pseudonyms made with a key that is not part of "
            "the data "
            "set; pixels and a few harmless attributes were kept, every other element of the headers was left behind, "
            "and so were overlays and the files' own names."
        )
        burned = facts["prepared"] and facts["prepared"]["burned_in"]
        yield (
            "Films that declare text burned into their pixels were taken too, as asked: look at them before "
            "anything is "
            "passed on."
            if burned
            else "Films that declare text burned into their pixels are refused unless they are asked for. Text that is "
            "not declared is not searched for."
        )
    if nameless < images:
        yield (
            f"{'Films' if not nameless else 'The other films'} are kept as the files they came as, under the names and "
            "subjects that the source gave them: if a name, or something written inside a file, says who is on a film, "
            "so does this data set."
        )
    yield "Whether the people on the films agreed to this use is for the source to say: see the first section."


def _limits(texts: Sequence[str]) -> list[Block]:
    if not texts:
        return [Text("The records give no reason for a warning; that is not proof that there is none.")]
    return [Text("These follow from the facts above; people may know of more."), Points(texts)]


def _uses(facts: Mapping[str, Any]) -> Iterator[Block]:
    if not facts["bundles"]:
        yield Text("No model in this workspace was made from it yet.")
        return
    rows = [[one["bundle"][:12], one["version"] or "not registered", moment(one["at"])] for one in facts["bundles"]]
    yield Table("Models that were made from it", ["bundle", "version", "made"], rows)
