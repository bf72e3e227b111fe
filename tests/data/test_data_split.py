"""Groups stay whole, classes keep their shares, and content alone decides."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from rounds.data.split import Group, divide, groups_of

FRACTIONS = {"val": 0.1, "calibration": 0.15, "test": 0.15}


def made(sizes: list[tuple[int, str]]) -> list[Group]:
    groups, at = [], 0
    for number, (size, label) in enumerate(sizes):
        groups.append(Group(tuple(range(at, at + size)), {label: size}, f"group {number}"))
        at += size
    return groups


def test_films_are_joined_through_others() -> None:
    ties = [["s1", "x"], ["s2", "y"], ["s3", "x"], ["s2", "z"], ["s4", "z"], ["s5", "w"]]
    groups = groups_of(ties, ["a", "b", "a", "b", "b", "a"], ["f", "e", "d", "c", "b", "a"])
    assert groups == [
        Group((0, 2), Counter(a=2), "d"),
        Group((1, 3, 4), Counter(b=3), "b"),
        Group((5,), Counter(a=1), "a"),
    ]


def test_single_films_are_cut_exactly() -> None:
    splits = divide(made([(1, "a")] * 100 + [(1, "b")] * 300), FRACTIONS, 0)
    assert Counter(splits[:100]) == {"train": 60, "val": 10, "calibration": 15, "test": 15}
    assert Counter(splits[100:]) == {"train": 180, "val": 30, "calibration": 45, "test": 45}


def test_the_order_of_the_groups_does_not_matter_and_the_seed_does() -> None:
    groups = made([(1 + number % 3, "ab"[number % 2]) for number in range(60)])
    first = dict(zip((group.key for group in groups), divide(groups, FRACTIONS, 0), strict=True))
    back = dict(zip((group.key for group in groups[::-1]), divide(groups[::-1], FRACTIONS, 0), strict=True))
    assert first == back
    assert first != dict(zip((group.key for group in groups), divide(groups, FRACTIONS, 1), strict=True))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.sampled_from("abc")), min_size=1, max_size=120), st.integers(0, 5))
def test_shares_are_met_to_within_a_group_and_no_split_lacks_a_class(sizes: list[tuple[int, str]], seed: int) -> None:
    groups = made(sizes)
    splits = divide(groups, FRACTIONS, seed)
    assert divide(groups, FRACTIONS, seed) == splits
    for label in {label for _, label in sizes}:
        own = [
            (sum(group.classes.values()), split)
            for group, split in zip(groups, splits, strict=True)
            if label in group.classes
        ]
        total = sum(size for size, _ in own)
        for split, share in {**FRACTIONS, "train": 0.6}.items():
            got = [size for size, where in own if where == split]
            assert got or len(own) < 4
            assert sum(got) <= share * total + max(size for size, _ in own)


def test_groups_of_several_classes_leave_no_split_without_one() -> None:
    groups = [Group((number,), {"a": 2, "b": 1} if number % 4 == 0 else {"a": 1}, str(number)) for number in range(32)]
    for seed in range(20):
        splits = divide(groups, FRACTIONS, seed)
        with_b = {split for group, split in zip(groups, splits, strict=True) if "b" in group.classes}
        assert with_b == set(splits) == {"train", "val", "calibration", "test"}
