"""What `prepare --repair` does with films that contradict each other or leak, by one rule, and how it is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from rounds.core.specs import SPLITS
from rounds.data.copies import Copies
from rounds.data.split import groups_of
from rounds.data.take import Taken

# The split that keeps its films: what is measured on stays as the source brought it.
KEEPS = ("test", "calibration", "val", "train")


class Repaired(NamedTuple):
    """One film that was changed: `did` is dropped, or moved to a split."""

    file: str
    did: str
    why: str


def repair(films: Sequence[Taken], copies: Copies) -> tuple[list[Taken], list[Repaired]]:
    """The films without contradictions and leaks, and what was done to the others.

    Films that show one picture under different labels are all dropped: nobody knows which label is right. Where films
    of one picture or one subject stand in several of the splits that the source brings, the split that comes first in
    test, calibration, val, train keeps its own. The others are dropped where they are copies, or where the keeper is
    test, which nothing is added to; else they are moved to the keeper.
    """
    agreeing, done = _without_contradictions(films, copies)
    kept: dict[int, Taken] = {}
    ties = [(("subject", film.subject), ("picture", copies.picture(film))) for film in agreeing]
    for group in groups_of(ties, [film.label for film in agreeing], [film.digest for film in agreeing]):
        members = {index: agreeing[index] for index in group.members}
        keeper = min({film.split or "train" for film in members.values()}, key=KEEPS.index)
        own = {copies.picture(film): film for film in members.values() if (film.split or "train") == keeper}
        for index, film in members.items():
            if (film.split or "train") == keeper:
                kept[index] = film
                continue
            twin = own.get(copies.picture(film))
            if twin:
                done.append(Repaired(film.name, "dropped", f"shows the same picture as {twin.name} in {keeper}"))
            elif keeper == "test":
                done.append(Repaired(film.name, "dropped", f"its subject {film.subject} is in test"))
            else:
                kept[index] = replace(film, split=keeper)
                done.append(Repaired(film.name, f"moved to {keeper}", f"its subject {film.subject} is in {keeper}"))
    return [kept[index] for index in sorted(kept)], sorted(done)


def repair_notes(done: Sequence[Repaired], before: Sequence[Taken]) -> list[str]:
    """What was repaired, counted, for the data set's notes; every single film is in the answer of `prepare`."""
    split_of = {film.name: film.split or "train" for film in before}
    counted = Counter((split_of[one.file], one.did, _kind(one.why)) for one in done)
    return [
        f"repaired: {count} films of {split} {did}: {why}"
        for (split, did, why), count in sorted(counted.items(), key=lambda item: (SPLITS.index(item[0][0]), item[0]))
    ]


def _kind(why: str) -> str:
    """The reason without the names in it."""
    if why.startswith("its subject"):
        return f"their subjects are in {why.rsplit(' ', 1)[1]}"
    if why.startswith("shows the same picture"):
        return f"copies of films in {why.rsplit(' ', 1)[1]}"
    return "one picture under several labels"


def _without_contradictions(films: Sequence[Taken], copies: Copies) -> tuple[list[Taken], list[Repaired]]:
    labels: dict[str, dict[str, Taken]] = {}
    for film in films:
        labels.setdefault(copies.picture(film), {}).setdefault(film.label, film)
    agreeing: list[Taken] = []
    done: list[Repaired] = []
    for film in films:
        others = [twin for label, twin in labels[copies.picture(film)].items() if label != film.label]
        if others:
            why = f"is labelled {film.label}, and {others[0].name}, which shows the same picture, {others[0].label}"
            done.append(Repaired(film.name, "dropped", why))
        else:
            agreeing.append(film)
    return agreeing, done
