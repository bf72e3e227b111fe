"""Films that show one picture, or one subject: in one split, in two, and under different labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rounds.data.checks import across, together
from rounds.data.copies import Copies
from rounds.data.findings import Finding, film_told, pair_told, several
from rounds.data.take import Taken


def sameness(films: Sequence[Taken], copies: Copies, *, subjects_known: bool) -> Iterator[Finding]:
    """Findings on copies, subjects and labels; every film that leaks is in a pair."""
    exact = list(together(films, lambda film: film.pixels))
    alike = [group for group in together(films, copies.picture) if len({film.pixels for film in group}) > 1]
    yield from _crossing("copies_across_splits", "in the same pixels", exact, copies)
    near = [[pair for pair in across(group) if pair[0].pixels != pair[1].pixels] for group in alike]
    yield from _leak("near_copies_across_splits", "in near copies", near, copies)
    if subjects_known:
        subjects = list(together(films, lambda film: film.subject))
        crossing = [group for group in subjects if len({film.split for film in group}) > 1]
        pairs = [pair_told(*pair, f"subject {pair[0].subject}", copies) for group in crossing for pair in across(group)]
        if pairs:
            what = f"{several(len(crossing), 'subject has', 'subjects have')} films in two splits"
            yield Finding(
                "leak", "subjects_across_splits", what, pairs=tuple(pairs), values={"subjects": len(crossing)}
            )
    yield from _contradictions([*exact, *alike], copies)
    yield from _inside("copies", "exactly", exact, copies)
    yield from _inside("near_copies", "in near copies", alike, copies)
    if copies.unsearched:
        what = f"{several(copies.unsearched, 'comparison')} were left out: too many films look alike"
        yield Finding("note", "unsearched", what, values={"comparisons": copies.unsearched})


def _crossing(kind: str, how: str, groups: list[list[Taken]], copies: Copies) -> Iterator[Finding]:
    yield from _leak(kind, how, [list(across(group)) for group in groups], copies)


def _leak(kind: str, how: str, groups: list[list[tuple[Taken, Taken]]], copies: Copies) -> Iterator[Finding]:
    pairs = [pair_told(one, other, copies.how(one, other), copies) for group in groups for one, other in group]
    if pairs:
        pictures = sum(map(bool, groups))
        what = f"{several(pictures, 'picture is', 'pictures are')} in two splits {how}"
        yield Finding("leak", kind, what, pairs=tuple(pairs), values={"pictures": pictures})


def _contradictions(groups: list[list[Taken]], copies: Copies) -> Iterator[Finding]:
    pairs: dict[tuple[str, str], dict[str, object]] = {}
    for group in groups:
        first = {film.label: film for film in reversed(group)}
        for film in group:
            for label, other in first.items():
                if label != film.label and (other.name, film.name) not in pairs:
                    pairs.setdefault((film.name, other.name), pair_told(film, other, copies.how(film, other), copies))
    if pairs:
        what = f"{several(len(pairs), 'pair')} of films show one picture under two labels"
        yield Finding("fault", "contradictory_labels", what, pairs=tuple(pairs.values()))


def _inside(kind: str, how: str, groups: list[list[Taken]], copies: Copies) -> Iterator[Finding]:
    """Copies within a split, each film with the first of its group."""
    pairs = []
    for group in groups:
        for split in {film.split: None for film in group}:
            first, *others = [film for film in group if film.split == split]
            told = [film for film in others if kind == "copies" or film.pixels != first.pixels]
            pairs += [pair_told(first, film, copies.how(first, film), copies) for film in told]
    if pairs:
        what = f"{several(len(groups), 'picture occurs', 'pictures occur')} more than once {how}"
        films = tuple(film_told(film) for group in groups for film in group)
        yield Finding("note", kind, what, films, tuple(pairs), {"pictures": len(groups)})
