"""Groups that must stay together, and their division into splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

from rounds.core.ids import hash01


class Group(NamedTuple):
    """Films that stay on one side: their indices, their number by class, and a name that their content gives."""

    members: tuple[int, ...]
    classes: Mapping[str, int]
    key: str


def groups_of(ties: Sequence[Iterable[Hashable]], labels: Sequence[str], digests: Sequence[str]) -> list[Group]:
    """Joins films that share a tie (a subject, the same pixels), directly or through others."""
    leader = list(range(len(ties)))

    def find(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    first: dict[Hashable, int] = {}
    for index, tie in enumerate(ties):
        for key in tie:
            leader[find(index)] = find(first.setdefault(key, index))
    members: dict[int, list[int]] = defaultdict(list)
    for index in range(len(ties)):
        members[find(index)].append(index)
    return [
        Group(tuple(group), Counter(labels[index] for index in group), min(digests[index] for index in group))
        for group in members.values()
    ]


def divide(groups: Sequence[Group], fractions: Mapping[str, float], seed: int) -> list[str]:
    """The split of each group: `fractions` of every class, the rest to train; the same for the same content and seed.

    In an order drawn from the seed, each group goes where its classes lack most in relation to their share. No split
    is left without a class while groups of it remain; sizes are met to within about one group.
    """
    shares = {**fractions, "train": 1.0 - sum(fractions.values())}
    totals = sum((Counter(group.classes) for group in groups), Counter())
    have = {split: Counter[str]() for split in shares}

    def need(split: str, group: Group) -> tuple[int, float]:
        lacking = sum(have[split][label] == 0 for label in group.classes)
        filled = sum(
            count * have[split][label] / (shares[split] * totals[label])
            for label, count in sorted(group.classes.items())
        )
        return lacking, -filled / sum(group.classes.values())

    answer = [""] * len(groups)
    # Small splits come first among equals, so that they are never the ones left without a class.
    by_share = sorted(shares, key=lambda split: (shares[split], split))
    for index in sorted(range(len(groups)), key=lambda index: (hash01(seed, groups[index].key), groups[index].key)):
        group = groups[index]
        split = max(by_share, key=lambda split: need(split, group))
        have[split].update(group.classes)
        answer[index] = split
    return answer
