"""What only a database can show: processes, seals, migrations, and a disk that does not do as it is asked."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from rounds.core.errors import BadOverride, NotWritable, StoreAway
from rounds.core.records import Captured, Label
from rounds.stores.rows import open_rows
from rounds.stores.rows_versions import HEAD

APPEND = """
import sys
from rounds.stores.rows import open_rows
rows = open_rows(sys.argv[1])
for i in range(int(sys.argv[2])):
    rows.events.append("alarm", who=sys.argv[3], why="", evidence={"i": i})
    print(i, flush=True)
"""


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'rows.db'}"


def process(*arguments: str, limit: int | None = None) -> subprocess.Popen[str]:
    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit or 0, limit or 0))

    command = [sys.executable, "-c", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=small_files if limit else None
    )


def film(name: str, subject: str = "s1") -> Captured:
    at = datetime(2026, 3, 4, tzinfo=UTC)
    return Captured(name, at, "b", "v1", "i", "normal", (0.5,), (0.5,), (0.5,), True, 1.0, "REF-" + name, subject)


def test_processes_that_start_together_on_a_fresh_workspace_form_one_chain(tmp_path: Path) -> None:
    started = [process(APPEND, url(tmp_path), "15", str(i)) for i in range(3)]
    errors = [one.communicate(timeout=60)[1] for one in started]
    assert errors == ["", "", ""]
    rows = open_rows(url(tmp_path))
    found = rows.events.read()
    rows.close()
    assert [event.seq for event in found] == list(range(1, 46))
    assert [event.prev for event in found[1:]] == [event.hash for event in found[:-1]]


def test_what_a_killed_process_had_appended_is_there_and_whole(tmp_path: Path) -> None:
    one = process(APPEND, url(tmp_path), "100000", "killed")
    assert one.stdout is not None
    said = [int(one.stdout.readline()) for _ in range(20)]
    os.kill(one.pid, signal.SIGKILL)
    one.communicate(timeout=30)
    rows = open_rows(url(tmp_path))
    found = rows.events.read()
    rows.close()
    assert [event.evidence["i"] for event in found][:20] == said
    assert all(event.hash == event.sealed() for event in found)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET why = 'other' WHERE seq = 1",
        "DELETE FROM events WHERE seq = 1",
        "INSERT OR REPLACE INTO events SELECT * FROM events WHERE seq = 1",
    ],
)
def test_the_log_can_be_neither_changed_nor_shortened(tmp_path: Path, statement: str) -> None:
    rows = open_rows(url(tmp_path))
    rows.events.append("alarm", who="watch", why="", evidence={})
    rows.close()
    with sqlite3.connect(tmp_path / "rows.db") as raw, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        raw.execute(statement)


def test_the_file_is_in_wal_mode_and_opened_again_keeps_everything(tmp_path: Path) -> None:
    for i in range(3):
        rows = open_rows(url(tmp_path))
        rows.events.append("alarm", who="watch", why="", evidence={"i": i})
        rows.close()
    with sqlite3.connect(tmp_path / "rows.db") as raw:
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert raw.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEAD,)]
        assert raw.execute("SELECT count(*) FROM events").fetchone() == (3,)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(NotWritable, match=r"file cannot be written\n.*the folder cannot be made.*choose another"):
        open_rows(f"sqlite:///{tmp_path / 'file' / 'rows.db'}")


def test_a_place_where_no_database_can_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.db").mkdir()
    with pytest.raises(
        NotWritable, match=r"rows.db cannot be written\n.*cannot be opened.*unable to open database file"
    ):
        open_rows(url(tmp_path))


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.db").write_bytes(b"not a database, and long enough to be looked at" * 100)
    with pytest.raises(StoreAway, match=r"rows.db does not answer\n.*the file is no SQLite database"):
        open_rows(url(tmp_path))


def test_a_read_only_database_is_named_and_still_read(tmp_path: Path) -> None:
    open_rows(url(tmp_path)).close()
    rows = open_rows(f"sqlite:///file:{tmp_path / 'rows.db'}?mode=ro&uri=true")
    with pytest.raises(NotWritable, match=r"the database is read-only.*attempt to write a readonly database"):
        rows.events.append("alarm", who="watch", why="", evidence={})
    assert rows.events.head() == 0
    rows.close()


def test_a_full_disk_is_named_and_nothing_is_half_kept(tmp_path: Path) -> None:
    rows = open_rows(url(tmp_path))
    with rows.database.reading() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(NotWritable, match=r"the disk is full; got database or disk is full\. Free some space"):
        rows.events.append("alarm", who="watch", why="x" * 100_000, evidence={})
    assert rows.events.head() == 0
    rows.close()


def test_a_disk_that_refuses_the_bytes_is_named(tmp_path: Path) -> None:
    open_rows(url(tmp_path)).close()
    big = APPEND.replace('why=""', 'why="x" * 200_000')
    out, errors = process(big, url(tmp_path), "1", "limited", limit=150_000).communicate(timeout=60)
    assert out == ""
    assert "NotWritable" in errors
    assert "the disk does not take the data" in errors


def test_a_locked_database_is_waited_for_and_then_named(tmp_path: Path) -> None:
    open_rows(url(tmp_path)).close()
    rows = open_rows(url(tmp_path), busy_s=0.2)
    with sqlite3.connect(tmp_path / "rows.db", isolation_level=None) as raw:
        raw.execute("BEGIN IMMEDIATE")
        begun = time.monotonic()
        with pytest.raises(StoreAway, match="locked by another process; got database is locked"):
            rows.events.append("alarm", who="watch", why="", evidence={})
        assert time.monotonic() - begun >= 0.2
        assert rows.events.head() == 0
        raw.execute("ROLLBACK")
    assert rows.events.append("alarm", who="watch", why="", evidence={}).seq == 1
    rows.close()


def test_a_postgresql_server_that_is_away_is_named_without_its_password() -> None:
    pytest.importorskip("psycopg", reason="no PostgreSQL driver here: pip install 'psycopg[binary]'")
    with pytest.raises(StoreAway, match=r"\*\*\*@127.0.0.1:1/x does not answer\n.*Check that the database") as found:
        open_rows("postgresql://me:hidden@127.0.0.1:1/x")
    assert "hidden" not in str(found.value)


def test_a_missing_postgresql_driver_is_named() -> None:
    program = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from rounds.stores.rows import open_rows\nopen_rows('postgresql://me:hidden@127.0.0.1:1/x')"
    )
    _, errors = process(program).communicate(timeout=60)
    assert "BadOverride: PostgreSQL cannot be reached from here" in errors
    assert "install it: pip install 'rounds[cloud]'" in errors.replace("Install", "install")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("not an address", r"cannot be read\n.*expected sqlite:///FILE or postgresql://USER@HOST/NAME"),
        ("mysql://h/x", r"rows cannot be kept there\n.*unknown database; expected sqlite or postgresql; got mysql"),
        ("sqlite://", r"SQLite without a file forgets"),
        ("sqlite:///:memory:", r"SQLite without a file forgets"),
    ],
)
def test_an_address_that_keeps_no_rows_is_refused(address: str, message: str) -> None:
    with pytest.raises(BadOverride, match=message):
        open_rows(address)


def test_nothing_of_an_erased_film_is_left_in_the_files(tmp_path: Path) -> None:
    rows = open_rows(url(tmp_path))
    rows.captures.record([film(f"p{i}") for i in range(50)] + [film("other", "s2")])
    rows.captures.attach([("p1", Label("normal", reference="REF-p1"))])
    rows.captures.erase("s1")
    for file in tmp_path.iterdir():
        assert b"REF-p" not in file.read_bytes(), file.name
    rows.close()


def test_a_garbled_entry_still_reaches_the_audit(tmp_path: Path) -> None:
    rows = open_rows(url(tmp_path))
    rows.events.append("alarm", who="watch", why="", evidence={})
    rows.close()
    with sqlite3.connect(tmp_path / "rows.db") as raw:
        raw.execute("DROP TRIGGER events_never_change")
        raw.execute("UPDATE events SET evidence = '{', at = 'yesterday'")
    rows = open_rows(url(tmp_path))
    (event,) = rows.events.read()
    rows.close()
    assert event.evidence == {"unreadable": "{"}
    assert event.at.year == 1
    assert event.hash != event.sealed()


def test_a_query_that_is_wrong_stays_a_bug(tmp_path: Path) -> None:
    rows = open_rows(url(tmp_path))
    with pytest.raises(sa.exc.IntegrityError), rows.database.writing() as connection:
        connection.exec_driver_sql("INSERT INTO heads VALUES ('events', 1)")
    rows.close()
