"""A workspace that is made, opened, and named when it cannot be."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.cloud import s3_server
from tests.support.commands import rounds

from rounds.core.errors import BadOverride, NotWritable, WorldFault
from rounds.stores.rows_versions import HEAD
from rounds.wiring.serving import open_ports
from rounds.wiring.settings import Settings

KEY = "0123456789abcdef"


def test_the_workspace_is_made_at_the_first_opening_and_kept(home: Path) -> None:
    with open_ports(Settings()) as ports:
        assert ports.home == home
        ports.events.append("alarm", who="watch", why="", evidence={})
        name, secret = ports.blobs.put(b"film"), ports.secret
    with open_ports(Settings()) as ports:
        assert (ports.events.head(), ports.blobs.get(name), ports.secret) == (1, b"film", secret)
        assert ports.clock().tzinfo is not None
        assert ports.runs is None


def test_the_key_is_secret_and_the_same_for_all_who_come_first(home: Path) -> None:
    def key(_: int) -> str:
        with open_ports(Settings()) as ports:
            return ports.secret

    with ThreadPoolExecutor(6) as pool:
        keys = set(pool.map(key, range(6)))
    assert len(keys) == 1
    assert (home / "secret").stat().st_mode & 0o777 == 0o600
    assert len(keys.pop()) == 64
    assert not [path for path in home.iterdir() if path.name.startswith(".")]


def test_a_key_that_was_emptied_is_not_replaced_quietly(home: Path) -> None:
    home.mkdir()
    (home / "secret").write_text("")
    with (
        pytest.raises(WorldFault, match=r"the workspace's key is damaged\n.*expected 16 characters or more; got 0"),
        open_ports(Settings()),
    ):
        pass


def test_a_workspace_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ROUNDS_HOME", str(tmp_path / "file" / "home"))
    with (
        pytest.raises(
            NotWritable, match=r"the workspace .*file/home cannot be written\n.*a folder to write to.*--home"
        ),
        open_ports(Settings()),
    ):
        pass


def test_a_workspace_of_a_newer_version_is_left_alone(home: Path) -> None:
    with open_ports(Settings()):
        pass
    with closing(sqlite3.connect(home / "rounds.db")) as raw, raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    with (
        pytest.raises(NotWritable, match=r"newer than this version of Rounds\n.*Upgrade Rounds"),
        open_ports(Settings()),
    ):
        pass


def test_a_workspace_of_an_older_version_opens_or_says_what_to_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.mkdir()
    first = Path(__file__).parents[1] / "stores" / "first_version" / "sqlite.sql"
    with closing(sqlite3.connect(home / "rounds.db")) as raw:
        raw.executescript(first.read_text(encoding="utf-8"))
    monkeypatch.setenv("ROUNDS_MIGRATE", "false")
    with pytest.raises(NotWritable, match=r"older schema\n.*then run: rounds migrate"), open_ports(Settings()):
        pass
    said = rounds(home, "migrate", "--look", "--json").json
    assert (said["from"], said["to"], len(said["steps"]), said["done"]) == ("0001", HEAD, int(HEAD) - 1, False)
    assert rounds(home, "migrate", "--json").json == {**said, "done": True}
    assert rounds(home, "migrate").out == f"schema {HEAD} -> {HEAD}\nnothing to do\n"
    with open_ports(Settings()) as ports:
        assert (ports.captures.count(), ports.events.head()) == (3, 3)


def test_blobs_go_to_the_folder_or_the_object_store_that_is_named(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROUNDS_BLOBS", str(tmp_path / "films"))
    with open_ports(Settings()) as ports:
        name = ports.blobs.put(b"film")
    assert (tmp_path / "films" / name[:2] / name[2:4] / name).read_bytes() == b"film"
    assert not (home / "blobs").exists()
    pytest.importorskip("s3fs", reason="no client here: pip install 'rounds[cloud]'")
    with s3_server() as store:
        monkeypatch.setenv("ROUNDS_BLOBS", f"{store.make_bucket('films')}/ward")
        with store.reached(), open_ports(Settings()) as ports:
            assert ports.blobs.put(b"film") == name
            assert (ports.blobs.get(name), list(ports.blobs)) == (b"film", [name])


def test_variables_move_every_part(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUNDS_ROWS", f"sqlite:///{tmp_path / 'elsewhere.db'}")
    monkeypatch.setenv("ROUNDS_TRACKING", "http://127.0.0.1:5000")
    monkeypatch.setenv("ROUNDS_SECRET", KEY)
    monkeypatch.setenv("ROUNDS_LOG_LEVEL", "WARNING")
    settings = Settings()
    with open_ports(settings) as ports:
        assert ports.secret == KEY
    assert (tmp_path / "elsewhere.db").is_file()
    assert not (home / "secret").exists()
    assert (settings.tracking_uri, settings.log_level) == ("http://127.0.0.1:5000", "WARNING")
    assert KEY not in repr(settings)


def test_without_variables_everything_lies_in_the_workspace(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUNDS_ROWS", "")
    settings = Settings()
    assert settings.rows_url == f"sqlite:///{home / 'rounds.db'}"
    assert settings.tracking_uri == f"sqlite:///{home / 'mlflow.db'}"


def test_every_setting_that_cannot_be_read_is_named_and_no_key_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUNDS_LOG_LEVEL", "LOUD")
    monkeypatch.setenv("ROUNDS_SECRET", "tooshort")
    with pytest.raises(BadOverride, match="the settings cannot be read") as found:
        Settings()
    assert [fault.where for fault in found.value.faults] == ["ROUNDS_SECRET", "ROUNDS_LOG_LEVEL"]
    assert "tooshort" not in str(found.value)


def test_opening_for_serving_imports_nothing_heavy(home: Path) -> None:
    program = (
        "import sys\nfrom rounds.wiring.serving import open_ports\nfrom rounds.wiring.settings import Settings\n"
        "with open_ports(Settings()): pass\n"
        "print(sorted({'torch', 'lightning', 'mlflow', 'pandas', 'numpy', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_ports_for_training_have_the_tracker_and_do_not_import_it(home: Path) -> None:
    program = (
        "import sys\nfrom rounds.wiring.training import open_ports\nfrom rounds.wiring.settings import Settings\n"
        "with open_ports(Settings()) as ports: print(type(ports.runs).__name__, 'mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "Spooled False\n"
