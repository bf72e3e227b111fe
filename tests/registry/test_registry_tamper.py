"""A copied log that somebody edits with SQL: every field of every entry, one at a time."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rounds.registry.log import audit
from rounds.stores.rows import open_rows

FIELDS = ("seq", "id", "at", "kind", "who", "why", "evidence", "prev", "hash")
OTHER = {
    "at": "2020-01-01T00:00:00.000000Z",
    "evidence": '{"i":-1}',
    "prev": "1" * 64,
    "hash": "2" * 64,
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    rows = open_rows(f"sqlite:///{folder / 'rows.db'}")
    for i in range(5):
        rows.events.append("alarm", who="watch", why="moved", evidence={"i": i})
    rows.close()
    return folder / "rows.db"


def edited(original: Path, folder: Path, statement: str, *values: object) -> str | None:
    copy = folder / f"{len(list(folder.iterdir()))}.db"
    shutil.copy(original, copy)
    with closing(sqlite3.connect(copy)) as raw, raw:
        for trigger in ("change", "go", "replace"):
            raw.execute(f"DROP TRIGGER events_never_{trigger}")
        raw.execute(statement, values)
    rows = open_rows(f"sqlite:///{copy}")
    found = audit(rows.events.read())
    rows.close()
    assert found.ok == (found.first_broken is None)
    return found.first_broken


def test_a_copy_that_nobody_edited_is_whole(original: Path, tmp_path: Path) -> None:
    assert edited(original, tmp_path, "UPDATE events SET who = who") is None


@pytest.mark.parametrize("field", FIELDS)
def test_the_entry_whose_field_was_changed_is_named(original: Path, tmp_path: Path, field: str) -> None:
    rows = open_rows(f"sqlite:///{original}")
    known = rows.events.read()
    rows.close()
    for event in known:
        for value in (100 + event.seq, -event.seq) if field == "seq" else (OTHER.get(field, "other"), b"\x00\xff"):
            found = edited(original, tmp_path, f"UPDATE events SET {field} = ? WHERE seq = ?", value, event.seq)
            assert found == (value if field == "id" else event.id), (event.seq, value)


def test_after_an_entry_was_removed_the_next_is_named(original: Path, tmp_path: Path) -> None:
    rows = open_rows(f"sqlite:///{original}")
    known = rows.events.read()
    rows.close()
    for event in known[:-1]:
        assert edited(original, tmp_path, "DELETE FROM events WHERE seq = ?", event.seq) == known[event.seq].id
