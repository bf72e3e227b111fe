"""A database written by an older version opens with all that it kept, or says what to run; a newer one is refused."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

from rounds.core.errors import NotWritable
from rounds.core.ids import new_id
from rounds.core.records import GENESIS, Cost, Label, Shadowed
from rounds.stores import rows_schema
from rounds.stores.rows import Rows, open_rows
from rounds.stores.rows_engine import Database
from rounds.stores.rows_versions import HEAD, STEPS, migrate, pending, version

FIRST = Path(__file__).with_name("first_version")
AT = datetime(2026, 3, 4, 5, 6, 7, 890123, UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Callable[[str], None]]]:
    """An empty database: its address, and what runs a script of statements there."""
    if request.param == "sqlite":

        def script(text: str) -> None:
            connection = sqlite3.connect(tmp_path / "rows.db")
            connection.executescript(text)
            connection.close()

        yield f"sqlite:///{tmp_path / 'rows.db'}", script
        return
    server, name = request.getfixturevalue("postgres_url"), f"t{new_id('')}"
    import psycopg

    address = server.rsplit("/", 1)[0] + f"/{name}"

    def run(text: str, at: str = address) -> None:
        with psycopg.connect(at, autocommit=True) as connection:
            connection.execute(text)  # type: ignore[arg-type]

    run(f"CREATE DATABASE {name}", server)
    yield address, run


def first(place: tuple[str, Callable[[str], None]]) -> str:
    """A database as the first version left it."""
    address, script = place
    script((FIRST / f"{address.split(':')[0]}.sql").read_text(encoding="utf-8"))
    return address


def everything_is_there(rows: Rows) -> None:
    events = rows.events.read()
    assert [event.kind for event in events] == ["registered", "promoted", "alarm"]
    assert [event.prev for event in events] == [GENESIS, *(event.hash for event in events[:-1])]
    assert all(event.hash == event.sealed() and event.evidence["text"] == "Röntgen" for event in events)
    films = rows.captures.since(0)
    assert [(film.seq, film.prediction, film.size, film.gone) for film in films] == [
        (1, "p_one", 0, False),
        (2, "p_two", 0, False),
        (3, "p_three", 0, False),
    ]
    assert (films[0].probabilities, films[0].scores, films[0].audited) == ((0.25, 0.75), (0.1, 1e300), True)
    assert rows.captures.labels() == {"p_one": Label("normal", "p_one", None, "reader", AT)}
    assert rows.snapshots.load("watch") == (1, b"\x00state")
    assert list(rows.ledger.read()) == [Cost("train", "d1", AT, 1.5, 2.25, 7)]


def test_a_database_of_the_first_version_opens_and_goes_on(place: tuple[str, Callable[[str], None]]) -> None:
    address = first(place)
    rows = open_rows(address, clock=lambda: AT)
    everything_is_there(rows)
    film = rows.captures.since(0)[0]
    assert list(rows.captures.record([film])) == [1]
    assert rows.captures.record_shadows([Shadowed("p_one", "v2", "c", "normal", (1.0,), (), 1.0)]) == 1
    assert rows.events.append("alarm", who="watch", why="", evidence={}).seq == 4
    with pytest.raises(sa.exc.IntegrityError, match="append-only"), rows.database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM events WHERE seq = 1")
    rows.close()


def test_it_says_what_to_run_where_it_may_not_bring_itself_forward(place: tuple[str, Callable[[str], None]]) -> None:
    address = first(place)
    with pytest.raises(NotWritable, match=rf"older schema\n.*expected {HEAD}; got 0001.*run: rounds migrate"):
        open_rows(address, forward=False)
    database = Database(address, 30.0)
    told = pending(database)
    assert (told.before, told.after, version(database)) == ("0001", HEAD, "0001")
    assert told.steps[0] == "0002: Answers of versions that look on; how large an image is, and whether it was dropped."
    assert migrate(database) == told
    assert (version(database), pending(database).steps, migrate(database).steps) == (HEAD, (), ())
    database.close()
    rows = open_rows(address, forward=False)
    everything_is_there(rows)
    rows.close()


def test_an_empty_database_is_made_whether_or_not_it_may_be_brought_forward(
    place: tuple[str, Callable[[str], None]],
) -> None:
    rows = open_rows(place[0], forward=False)
    assert (rows.captures.count(), version(rows.database)) == (0, HEAD)
    rows.close()


def test_the_tables_are_those_that_the_program_speaks_of(place: tuple[str, Callable[[str], None]]) -> None:
    rows = open_rows(first(place))
    found = sa.inspect(rows.database.engine)
    for table in rows_schema.TABLES:
        assert {column["name"] for column in found.get_columns(table.name)} == set(table.c.keys()), table.name
    rows.close()


@pytest.mark.parametrize("change", ["UPDATE alembic_version SET version_num = '9999'", "DROP TABLE alembic_version"])
def test_a_database_of_a_newer_version_is_left_alone(place: tuple[str, Callable[[str], None]], change: str) -> None:
    open_rows(place[0]).close()
    place[1](change + "; INSERT INTO migrations (name, at) VALUES ('m999_later', '')")
    with pytest.raises(NotWritable, match=rf"newer than this version of Rounds\n.*expected {HEAD} or older; got"):
        open_rows(place[0])
    with pytest.raises(NotWritable, match="newer than this version of Rounds"):
        open_rows(place[0], forward=False)


def test_the_first_version_finds_a_step_that_it_does_not_know(place: tuple[str, Callable[[str], None]]) -> None:
    rows = open_rows(first(place))
    with rows.database.reading() as connection:
        names = set(connection.exec_driver_sql("SELECT name FROM migrations").scalars())
    rows.close()
    assert names - {"m001_initial"} == {"0002"}


def test_a_step_that_fails_leaves_the_database_as_it_was(place: tuple[str, Callable[[str], None]]) -> None:
    address = first(place)
    # the second step wants to make this table itself, after it has widened another
    place[1]("CREATE TABLE shadows (mine INTEGER)")
    with pytest.raises(Exception, match="shadows"):
        open_rows(address)
    place[1]("DROP TABLE shadows")
    database = Database(address, 30.0)
    assert version(database) == "0001"
    database.close()
    rows = open_rows(address)
    everything_is_there(rows)
    rows.close()


def test_the_number_in_the_program_is_that_of_the_newest_step() -> None:
    steps = ScriptDirectory(STEPS)
    assert steps.get_current_head() == HEAD
    assert [step.revision for step in steps.walk_revisions()] == sorted(
        (s.revision for s in steps.walk_revisions()), reverse=True
    )


def test_opening_what_is_up_to_date_imports_no_alembic(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'rows.db'}"
    open_rows(address).close()
    program = (
        "import sys\nfrom rounds.stores.rows import open_rows\nopen_rows(sys.argv[1]).close()\n"
        "print([name for name in ('alembic', 'mako') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program, address], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_processes_that_find_an_old_database_together_bring_it_forward_once(
    place: tuple[str, Callable[[str], None]],
) -> None:
    address = first(place)
    program = "import sys\nfrom rounds.stores.rows import open_rows\nopen_rows(sys.argv[1]).close()"
    started = [
        subprocess.Popen([sys.executable, "-c", program, address], stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    assert [one.communicate(timeout=120)[1] for one in started] == ["", "", ""]
    rows = open_rows(address)
    everything_is_there(rows)
    rows.close()
