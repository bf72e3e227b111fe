"""What a data set must not have: films with two labels, films on both sides of a split, classes too small to cut."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, product

from rounds.core.errors import Fault, LeakFound
from rounds.data.items import bad_source
from rounds.data.layout import EXPECTED
from rounds.data.take import Taken, Yield

# Beyond this many pairs of one group every file is still named, but not with every other.
_ALL_PAIRS = 100


def check_films(source: str, found: Yield) -> None:
    """Raises BadSource for classes that are missing or left without a film, and for films that carry two labels."""
    left = {film.label for film in found.taken}
    faults: list[Fault] = []
    if not found.offered:
        faults.append(Fault("no images in class folders", source, EXPECTED))
    elif len(found.offered) == 1:
        faults.append(Fault("only one class", source, "at least two class folders with images", *found.offered))
    faults += [
        Fault("no film of this class could be taken", label, "at least one image that can be decoded")
        for label in sorted(found.offered - left)
    ]
    if faults:
        faults += [Fault(reason, file) for file, reason in found.refused]
    faults += _contradictions(found.taken)
    if faults:
        raise bad_source(source, *faults)


def _contradictions(taken: Sequence[Taken]) -> Iterator[Fault]:
    for films in _together(taken, lambda film: film.pixels):
        first = films[0]
        for film in films[1:]:
            if film.label != first.label:
                yield Fault(
                    "the same image carries two labels",
                    f"{first.name} and {film.name}",
                    "one label an image",
                    f"{first.label} and {film.label}",
                    "correct one of them, or leave both out",
                )


def leave_out_copies(found: Yield, notes: list[str]) -> None:
    """Refuses the films of train whose exact copy is in val, for sources of which nobody can take out single films.

    MedMNIST's own files hold such copies. What calibration or test share with other splits stays a leak.
    """
    in_val = {film.pixels: film.name for film in found.taken if film.split == "val"}
    copies = [film for film in found.taken if film.split == "train" and film.pixels in in_val]
    if copies:
        gone = {film.name for film in copies}
        found.taken = [film for film in found.taken if film.name not in gone]
        found.refused += [(film.name, f"an exact copy of {in_val[film.pixels]}, which is in val") for film in copies]
        notes.append(f"{len(copies)} films of train are exact copies of films in val: left out of train")


def check_leaks(source: str, taken: Sequence[Taken]) -> None:
    """Raises LeakFound for every image and every known subject that stands in two of the splits the source brings."""
    faults: list[Fault] = []
    pairs: dict[tuple[str, str], None] = {}
    kinds: list[tuple[str, Callable[[Taken], str]]] = [
        ("the same image in two splits", lambda film: film.pixels),
        ("one subject in two splits", lambda film: film.subject),
    ]
    for what, tie in kinds:
        for films in _together(taken, tie):
            for one, other in _across(films):
                if (one.name, other.name) not in pairs:
                    pairs[one.name, other.name] = None
                    got = f"{one.split} and {other.split}"
                    hint = "leave one of them out of the source"
                    faults.append(Fault(what, f"{one.name} and {other.name}", "each in one split", got, hint))
    if pairs:
        plural = "" if len(pairs) == 1 else "s"
        raise LeakFound(f"{len(pairs)} leak{plural} between the splits of {source}", faults, leaks=tuple(pairs))


def _across(films: Sequence[Taken]) -> Iterator[tuple[Taken, Taken]]:
    """Pairs of films of different splits, so that every film that leaks is in one of them."""
    sides: dict[str | None, list[Taken]] = defaultdict(list)
    for film in films:
        sides[film.split].append(film)
    for one, other in combinations(sides.values(), 2):
        if len(one) * len(other) <= _ALL_PAIRS:
            yield from product(one, other)
        else:
            yield from ((film, other[0]) for film in one)
            yield from ((one[0], film) for film in other[1:])


def _together(taken: Sequence[Taken], tie: Callable[[Taken], str]) -> Iterator[list[Taken]]:
    """The films that share a tie with another, in the order of the source."""
    counted = Counter(map(tie, taken))
    groups: dict[str, list[Taken]] = defaultdict(list)
    for film in taken:
        if counted[tie(film)] > 1:
            groups[tie(film)].append(film)
    yield from groups.values()
