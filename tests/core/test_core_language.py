"""The language of the house: records that survive JSON, ids, whole files, and errors that say whose fault it is."""

from __future__ import annotations

import ast
import json
import math
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

import rounds.core
from rounds.core import errors
from rounds.core.errors import CallerFault, Fault, Refused, RoundsError, UnknownId, WorldFault
from rounds.core.ids import canonical, digest, from_rfc3339, hash01, new_id, pick, plain, restore, rfc3339, write_whole
from rounds.core.records import Captured, TrainedRun
from rounds.core.specs import Fit, ImagingSpec, TrainSpec

CORE = Path(rounds.core.__file__).parent


def code_lines(path: Path) -> int:
    """Lines that are neither blank, comment nor docstring."""
    text = path.read_text()
    quiet: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False):
            quiet |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines = enumerate(text.splitlines(), 1)
    return sum(1 for i, line in lines if line.strip() and not line.strip().startswith("#") and i not in quiet)


def test_core_stays_small_enough_to_read_at_a_sitting() -> None:
    assert sum(code_lines(path) for path in CORE.glob("*.py")) <= 700


def test_every_error_hangs_in_the_tree_that_its_module_draws() -> None:
    drawn = errors.__doc__ or ""
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RoundsError)]
    assert len(classes) <= 25
    assert [kind.__name__ for kind in classes if kind.__name__ not in drawn] == []
    codes = {kind.__name__: kind.exit_code for kind in classes}
    assert {codes[n] for n in ("BadImage", "BadSource", "UnknownId")} == {2}
    assert {codes[n] for n in ("DamagedBundle", "PortInUse", "NotWritable")} == {3}
    assert {codes[n] for n in ("LeakFound", "GateRefused")} == {4}


def test_a_fault_says_what_where_expected_got_and_next() -> None:
    fault = Fault("not an image", "film.png", "PNG or JPEG", "text", "export it again")
    assert str(fault) == "film.png: not an image; expected PNG or JPEG; got text. Export it again"
    error = CallerFault("1 file refused", [fault])
    assert str(error) == f"1 file refused\n  {fault}"
    assert error.public()["error"] == {
        "kind": "CallerFault",
        "message": "1 file refused",
        "faults": [
            {
                "what": "not an image",
                "where": "film.png",
                "expected": "PNG or JPEG",
                "got": "text",
                "next": "export it again",
            }
        ],
    }
    assert (CallerFault.exit_code, WorldFault.exit_code, Refused.exit_code) == (2, 3, 4)


@pytest.mark.parametrize(
    "record",
    [
        TrainSpec(seed=3, imaging=ImagingSpec(fit=Fit.PAD)),
        TrainedRun("r", Path("runs/r"), TrainSpec(), ("a", "b"), "d", "c", "g", 1.5, 2.5, {"auc": 0.9}),
        Captured(
            "p", datetime(2026, 1, 2, 3, 4, 5, 6, UTC), "b", "v1", "i", "a", (0.1, 0.9), (1.0,), (2.0,), True, 1.0
        ),
    ],
)
def test_a_record_written_as_json_is_read_back_the_same(record: object) -> None:
    assert is_dataclass(record)
    written = json.loads(canonical(record))
    assert list(written) == sorted(field.name for field in fields(record))
    assert restore(type(record), written) == record


def test_a_record_with_an_unknown_key_is_refused_rather_than_read_in_part() -> None:
    with pytest.raises(TypeError, match="colour"):
        restore(ImagingSpec, {"size": 28, "colour": True})


def test_canonical_json_has_one_text_and_no_nan() -> None:
    assert canonical({"b": (1, 2), "a": Fit.PAD}) == b'{"a":"pad","b":[1,2]}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical({"x": math.nan})


def test_times_are_utc_and_a_time_without_a_zone_is_refused() -> None:
    at = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
    assert rfc3339(at) == "2026-11-21T12:00:00.000000Z"
    assert from_rfc3339(rfc3339(at)) == at
    with pytest.raises(ValueError, match="has no time zone"):
        from_rfc3339("2026-11-21T12:00:00")


def test_a_unique_prefix_picks_and_anything_else_says_what_there_is() -> None:
    assert pick("bundle", "ab", ["abc", "xyz"], "rounds models lists them") == "abc"
    with pytest.raises(UnknownId, match="bundle 'a' is not unique") as several:
        pick("bundle", "a", ["abc", "abd"], "rounds models lists them")
    assert "2 that begin so: abc, abd" in str(several.value)
    with pytest.raises(UnknownId, match="no bundle 'q'") as none:
        pick("bundle", "q", ["abc"], "rounds models lists them")
    assert "Rounds models lists them" in str(none.value)


def test_hash01_is_the_same_for_ever_and_uniform_over_keys() -> None:
    assert hash01("seed", 7) == 0.4428148169242299
    values = [hash01(3, i) for i in range(20_000)]
    assert min(values) >= 0
    assert max(values) < 1
    assert abs(sum(values) / len(values) - 0.5) < 0.01


def test_new_ids_sort_by_time_and_do_not_collide() -> None:
    ids = [new_id("p_") for _ in range(2000)]
    assert len(set(ids)) == 2000
    assert [name[:13] for name in ids] == sorted(name[:13] for name in ids)


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.json"
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.json"]
    assert digest(b"two") == digest(path.read_bytes())
    assert plain({"path": path, "at": datetime(2026, 1, 1, tzinfo=UTC)})["at"] == "2026-01-01T00:00:00.000000Z"
