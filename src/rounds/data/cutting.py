"""Which split each film goes to: those that the source brings, and those that are cut from its train."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rounds.core.errors import Fault
from rounds.core.specs import SPLITS, DataSpec
from rounds.data.copies import Copies
from rounds.data.items import bad_source
from rounds.data.split import Group, divide, groups_of
from rounds.data.take import Taken


def settle_splits(spec: DataSpec, taken: Sequence[Taken], copies: Copies, notes: list[str]) -> list[str]:
    """The split of each film, in order; what was done about missing and small splits is added to `notes`.

    A source with splits but without train stays as it is, and one that is too small for any split becomes test. Else
    splits that hold under `min_per_class` films of a class join train, and they and the missing ones are cut from it by
    groups of subject and of copies, exact and near.

    Raises: BadSource naming every class with too few subjects to be in each split.
    """
    given = {film.split or "train" for film in taken}
    splits = [film.split or "train" for film in taken]
    if "train" not in given:
        notes.append(f"the source brings {' and '.join(sorted(given, key=SPLITS.index))} only, kept as it is")
        return splits
    small = _small(spec, splits, taken, notes)
    fractions = {split: getattr(spec, split) for split in SPLITS[1:] if split not in given - small}
    fractions = {split: share for split, share in fractions.items() if share > 0}
    pool = [index for index, split in enumerate(splits) if split == "train" or split in small]
    groups = groups_of(
        [(("subject", taken[index].subject), ("picture", copies.picture(taken[index]))) for index in pool],
        [taken[index].label for index in pool],
        [taken[index].digest for index in pool],
    )
    labels, needed = {film.label for film in taken}, len(fractions) + 1
    apart = Counter(label for group in groups for label in group.classes)
    if max(apart.values()) < needed and not any(film.split for film in taken):
        notes.append("no class has films enough to cut splits from: kept whole as test, to be measured or scored")
        return ["test"] * len(taken)
    _check_sizes(spec, groups, labels, needed)
    for group, split in zip(groups, divide(groups, fractions, spec.seed), strict=True):
        for member in group.members:
            splits[pool[member]] = split
    missing = [split for split in fractions if split not in given]
    if missing:
        notes.append(f"{', '.join(missing)} cut from train by subject: the source brings none")
    _tell_small(spec, splits, taken, fractions, notes)
    return splits


def _small(spec: DataSpec, splits: Sequence[str], taken: Sequence[Taken], notes: list[str]) -> set[str]:
    """The given splits, train aside, with too few films of a class."""
    small: set[str] = set()
    for split in sorted(set(splits) - {"train"}, key=SPLITS.index):
        counted = _count(split, splits, taken)
        if min(counted.values()) < spec.min_per_class:
            small.add(split)
            notes.append(
                f"the source's {split} ({_told(counted)}) has under {spec.min_per_class} films of a class: "
                f"its films join train, and {split} is cut from there by subject"
            )
    return small


def _check_sizes(spec: DataSpec, groups: Sequence[Group], labels: set[str], needed: int) -> None:
    """Every class needs a group for each split that is cut, and one for train."""
    films = sum((Counter(group.classes) for group in groups), Counter[str]())
    apart = Counter(label for group in groups for label in group.classes)
    faults = []
    for label in sorted(labels):
        if apart[label] < needed:
            kind = "film" if films[label] == apart[label] else "subject"
            many = "s" if apart[label] != 1 else ""
            faults.append(
                Fault(
                    f"the class has too few {kind}s to be in every split",
                    label,
                    f"at least {needed} {kind}s to train on and to cut the other splits from",
                    f"{apart[label]} {kind}{many}",
                    "add films of this class or leave it out",
                )
            )
    if faults:
        raise bad_source(spec.source, *faults)


def _tell_small(
    spec: DataSpec, splits: Sequence[str], taken: Sequence[Taken], fractions: Mapping[str, float], notes: list[str]
) -> None:
    for split in fractions:
        counted = _count(split, splits, taken)
        if min(counted.values()) < spec.min_per_class:
            notes.append(f"{split} is small ({_told(counted)}): the source has too few films for more")


def _count(split: str, splits: Sequence[str], taken: Sequence[Taken]) -> dict[str, int]:
    """Films by class in the split, zero for classes that it lacks."""
    counted = Counter(film.label for film, where in zip(taken, splits, strict=True) if where == split)
    return {label: counted[label] for label in sorted({film.label for film in taken})}


def _told(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {label}" for label, count in counted.items())
