"""What is laid over opened sources: classes named anew, subjects read from names, several sources as one."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from rounds.core.errors import BadOverride, Fault
from rounds.data.items import Item, Source, bad_source

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*:")


def renamed(sources: Sequence[Source], classes: Sequence[str]) -> list[Source]:
    """The sources with their classes named: ("normal", "pneumonia") names the labels 0 and 1, ("NORMAL=normal",)
    renames one.

    Raises: BadOverride for names that nothing bears, and for labels that get none.
    """
    if not classes:
        return list(sources)
    labels = frozenset[str]().union(*(source.labels for source in sources))
    names = _names(classes, labels)
    return [
        replace(
            source,
            items=map(partial(_renamed, names), source.items),
            labels=frozenset(names.get(label, label) for label in source.labels),
        )
        for source in sources
    ]


def _names(classes: Sequence[str], labels: frozenset[str]) -> dict[str, str]:
    pairs = [name.partition("=") for name in classes]
    here = ", ".join(sorted(labels))
    faults: list[Fault] = []
    if any(sign for _, sign, _ in pairs):
        names = {old: new for old, _, new in pairs}
        faults += [
            Fault("not a new name for a class", name, "old=new", next="or only names, for the labels 0, 1, ...")
            for name, (old, sign, new) in zip(classes, pairs, strict=True)
            if not (old and sign and new)
        ]
        faults += [Fault("no film bears this label", old, f"one of {here}") for old in names if old not in labels]
    else:
        names = {str(number): name for number, name in enumerate(classes)}
        expected = f"a number from 0 to {len(classes) - 1}, or one of the names"
        faults += [Fault("the label has no name", label, expected) for label in sorted(labels - {*names, *classes})]
    if faults:
        raise BadOverride("the classes cannot be named so", faults)
    return names


def _renamed(names: Mapping[str, str], item: Item) -> Item:
    return replace(item, label=names.get(item.label, item.label))


def with_subjects(source: Source, pattern: re.Pattern[str] | None) -> Source:
    """The source with the subject of each film read from its name: the first group, or the whole match; where nothing
    matches, none."""
    if pattern is None:
        return source
    return replace(source, items=map(partial(_with_subject, pattern), source.items), subjects_known=True)


def _with_subject(pattern: re.Pattern[str], item: Item) -> Item:
    found = pattern.search(item.name)
    whose = (found.group(1) if found.re.groups else found.group()) if found else None
    return replace(item, subject=whose or None)


def merged(named: Mapping[str, Source], *, shared_subjects: bool) -> Source:
    """Several sources as one: names of films begin with that of their source, which is also the attribute `source`.

    Subjects of different sources are different people, unless `shared_subjects`, or they are pseudonyms under one key.
    Labels must mean the same, which shows in one source that bears them all. Raises: BadSource naming the classes of
    each source where none does.
    """
    labels = frozenset[str]().union(*(source.labels for source in named.values()))
    if all(source.labels != labels for source in named.values()):
        faults = [
            Fault("its classes are not those of the others", name, ", ".join(sorted(labels)), _told(source.labels))
            for name, source in named.items()
        ]
        hint = Fault("one of the sources must have all the classes", next="rename with --classes OLD=NEW,...")
        raise bad_source(" and ".join(named), *faults, hint)
    return Source(
        total=sum(source.total for source in named.values()),
        items=_items(named, shared_subjects),
        refused=[(f"{name}/{file}", why) for name, source in named.items() for file, why in source.refused],
        notes=[f"{name}: {note}" for name, source in named.items() for note in _notes(source, labels)],
        subjects_known=all(source.subjects_known for source in named.values()),
        sealed=all(source.sealed for source in named.values()),
        labels=labels,
        readers=min(source.readers for source in named.values()),
    )


def _told(labels: frozenset[str]) -> str:
    return ", ".join(sorted(labels))


def _notes(source: Source, labels: frozenset[str]) -> Iterator[str]:
    yield from source.notes
    if source.labels != labels:
        lacking = _told(labels - source.labels)
        yield f"brings no {lacking}: a model may learn to tell the sources apart instead of the classes"


def _items(named: Mapping[str, Source], shared_subjects: bool) -> Iterator[Item]:
    for name, source in named.items():
        for item in source.items:
            own = item.subject is None or shared_subjects or source.nameless
            yield replace(
                item,
                name=f"{name}/{item.name}",
                subject=item.subject if own else f"{name}/{item.subject}",
                attributes={"source": name, **item.attributes},
            )


def short_names(sources: Sequence[str]) -> list[str]:
    """A name for each source, the last parts of its path that tell it from the others, whatever their order.

    Raises: BadSource for one that is given twice.
    """
    whole = [source if _ADDRESS.match(source) else os.path.abspath(source) for source in sources]  # noqa: PTH100 (text)
    twice = [source for source, count in Counter(whole).items() if count > 1]
    if twice:
        raise bad_source(
            " and ".join(sources), *(Fault("the source is given twice", source, "each once") for source in twice)
        )
    parts = [list(filter(None, re.split(r"[/\\]+", source))) for source in whole]
    tails = [["/".join(part[-depth:]) for depth in range(1, len(part) + 1)] for part in parts]
    often = Counter(tail for ends in tails for tail in ends)
    return [next((tail for tail in ends if often[tail] == 1), ends[-1]) for ends in tails]
