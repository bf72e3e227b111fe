"""What stops a data set from being made: films with two labels, films on both sides of a split, classes that are
missing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, product
from operator import attrgetter

from rounds.core.errors import Fault, LeakFound
from rounds.data.copies import Copies
from rounds.data.items import bad_source
from rounds.data.layout import EXPECTED
from rounds.data.take import Taken, Yield

# Beyond this many pairs of one group every file is still named, but not with every other.
_ALL_PAIRS = 100
# So many contradictions are told in the notes.
_TOLD = 3


def check_films(source: str, found: Yield, *, repair: bool = False) -> None:
    """Raises BadSource for classes that are missing or left without a film, and, unless they are to be repaired, for
    films that carry two labels."""
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
    if not repair:
        faults += _contradictions(found.taken)
    if faults:
        raise bad_source(source, *faults)


def _contradictions(taken: Sequence[Taken]) -> Iterator[Fault]:
    for films in together(taken, lambda film: film.pixels):
        first = films[0]
        for film in films[1:]:
            if film.label != first.label:
                yield Fault(
                    "the same image carries two labels",
                    f"{first.shown} and {film.shown}",
                    "one label an image",
                    f"{first.label} and {film.label}",
                    "correct one of them, or leave both out: --repair does",
                )


def leave_out_copies(found: Yield, copies: Copies, notes: list[str]) -> None:
    """Refuses the films of train whose copy, exact or near, is in val, for sources of which nobody can take out single
    films.

    MedMNIST's own files hold such copies. What calibration or test share with other splits stays a leak.
    """
    exact = {film.pixels: film for film in found.taken if film.split == "val"}
    near = {copies.picture(film): film for film in exact.values()}
    for kind, twins, key in (("an exact", exact, attrgetter("pixels")), ("a near", near, copies.picture)):
        gone = {film.name: twins[key(film)] for film in found.taken if film.split == "train" and key(film) in twins}
        if gone:
            out = [film for film in found.taken if film.name in gone]
            found.taken = [film for film in found.taken if film.name not in gone]
            for film in out:
                how = "" if kind == "an exact" else f" ({copies.how(film, gone[film.name])})"
                found.refused.append((film.name, f"{kind} copy of {gone[film.name].name}{how}, which is in val"))
            plural = kind.partition(" ")[2]
            notes.append(f"{len(gone)} films of train are {plural} copies of films in val: left out of train")


def tell_copies(taken: Sequence[Taken], copies: Copies, notes: list[str]) -> None:
    """Notes films that occur more than once, exactly and nearly, and pictures under two labels."""
    sizes = [len(films) for films in together(taken, lambda film: film.pixels)]
    if sizes:
        notes.append(f"{len(sizes)} images occur more than once ({sum(sizes)} films): their films stay together")
    near = [films for films in together(taken, copies.picture) if len({film.pixels for film in films}) > 1]
    if near:
        count = sum(map(len, near))
        notes.append(f"{len(near)} pictures occur in near copies ({count} films): their films stay together")
    split = [films for films in near if len({film.label for film in films}) > 1]
    for films in split[:_TOLD]:
        labels = {film.label: film.name for film in reversed(films)}
        told = " and ".join(f"{name} is {label}" for label, name in sorted(labels.items()))
        notes.append(f"near copies carry different labels: {told}")
    if len(split) > _TOLD:
        notes.append(f"{len(split) - _TOLD} more pictures carry different labels: rounds data check names them")
    if copies.unsearched:
        notes.append(f"{copies.unsearched} comparisons of films were left out: too many of them look alike")


def check_leaks(source: str, taken: Sequence[Taken], copies: Copies) -> None:
    """Raises LeakFound for every image, picture and known subject that stands in two of the splits the source
    brings."""
    faults: list[Fault] = []
    pairs: dict[tuple[str, str], None] = {}
    kinds: list[tuple[str, Callable[[Taken], str]]] = [
        ("the same image in two splits", lambda film: film.pixels),
        ("one picture in two splits", copies.picture),
        ("one subject in two splits", lambda film: film.subject),
    ]
    for what, tie in kinds:
        for films in together(taken, tie):
            for one, other in across(films):
                if (one.shown, other.shown) not in pairs:
                    pairs[one.shown, other.shown] = None
                    got = f"{one.split} and {other.split}"
                    got += f" ({copies.how(one, other)})" if tie == copies.picture else ""
                    hint = "leave one of them out of the source: --repair does"
                    faults.append(Fault(what, f"{one.shown} and {other.shown}", "each in one split", got, hint))
    if pairs:
        plural = "" if len(pairs) == 1 else "s"
        raise LeakFound(f"{len(pairs)} leak{plural} between the splits of {source}", faults, leaks=tuple(pairs))


def across(films: Sequence[Taken]) -> Iterator[tuple[Taken, Taken]]:
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


def together(taken: Sequence[Taken], tie: Callable[[Taken], str]) -> Iterator[list[Taken]]:
    """The films that share a tie with another, in the order of the source."""
    counted = Counter(map(tie, taken))
    groups: dict[str, list[Taken]] = defaultdict(list)
    for film in taken:
        if counted[tie(film)] > 1:
            groups[tie(film)].append(film)
    yield from groups.values()
