"""A backup holds a whole workspace, is verified before it is placed, and is placed whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.support.cloud import s3_server
from tests.support.commands import rounds
from tests.support.postgres import postgres_url as postgres_url
from tests.support.workspace import opened, promote

from rounds.capture import journal
from rounds.capture.capture import erase, pseudonym
from rounds.core.errors import BadOverride, DamagedData, NotWritable, StoreAway
from rounds.core.ids import digest
from rounds.core.ports import Blobs, Ports
from rounds.core.records import Captured, Cost, Label, Shadowed
from rounds.loop import backing, restoring, tracing
from rounds.stores.blobs_remote import RemoteBlobs
from rounds.wiring import moving
from rounds.wiring.serving import open_folder, open_ports
from rounds.wiring.settings import Settings

AT = datetime(2026, 3, 4, tzinfo=UTC)


# Answers are journalled and handed over, all the time; it says how many were acknowledged.
LOAD = """import sys, time
import numpy as np
from datetime import datetime, UTC
from pathlib import Path
from rounds.capture import journal
from rounds.wiring.serving import open_ports
from rounds.wiring.settings import Settings
place = Path(sys.argv[1])
writer = journal.Journal(place / "journal", 10**9)
with open_ports(Settings(home=place)) as ports:
    for i in range(100_000):
        films = [[f"x{i}-{j}", 0, 1.0, None, None, False] for j in range(8)]
        numbers = np.full((8, 2), 0.5), np.zeros((8, 2), np.float32), np.zeros((8, 1), np.float32)
        batch = journal.Batch("v1", "b", ("normal", "opacity"), films, *numbers)
        writer.append(batch, [f"{i}-{j}".encode() * 500 for j in range(8)], datetime.now(UTC))
        print((i + 1) * 8, flush=True)
        journal.drain(place / "journal", ports.blobs, ports.captures)
"""


def film(name: str, image: str, subject: str | None = None) -> Captured:
    return Captured(name, AT, "b", "v1", image, "normal", (0.5, 0.5), (0.0, 0.0), (0.1,), True, 1.0, None, subject)


def fill(ports: Ports, n: int = 20) -> None:
    """Films with labels, shadow answers, events, costs, states and files of every kind."""
    rows = [
        film(f"p{i}", ports.blobs.put(f"film {i}".encode()), pseudonym(ports.secret, f"s{i % 3}")) for i in range(n)
    ]
    ports.captures.record(rows)
    ports.captures.attach([("p1", Label("normal", by="reader"))])
    ports.captures.record_shadows([Shadowed("p1", "v2", "c", "normal", (1.0,), (), 1.0)])
    ports.snapshots.save("watch", 0, b"\x00state")
    ports.ledger.book(Cost("train", "d1", AT, 1.5, 2.25, 7))
    (ports.home / "keys.json").write_text("{}")
    (ports.home / "keys.json").chmod(0o600)
    (ports.home / "data" / "d1" / "cache").mkdir(parents=True)
    (ports.home / "data" / "d1" / "pack-0").write_bytes(bytes(range(256)) * 100)
    (ports.home / "data" / "d1" / "cache" / "made-again.npy").write_bytes(b"x")
    (ports.home / "journal").mkdir(exist_ok=True)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A workspace with a champion and films."""
    place = tmp_path / "here"
    with opened(place) as ports:
        fill(ports)
    promote(place)
    return place


def saved(home: Path, file: Path, settings: Settings | None = None) -> dict[str, Any]:
    settings = settings or Settings(home=home)
    with open_ports(settings) as ports:
        return backing.backup(ports, file, rows=partial(moving.take_rows, settings), database=moving.take_file)


def brought(file: Path, home: Path, settings: Settings | None = None) -> dict[str, Any]:
    hand_on = partial(moving.hand_on, settings or Settings(home=home))
    return restoring.restore(file, home, opened=open_folder, hand_on=hand_on)


def same(one: Ports, other: Ports) -> None:
    assert one.secret == other.secret
    assert list(one.events.read()) == list(other.events.read())
    assert list(one.captures.since(0)) == list(other.captures.since(0))
    assert list(one.captures.shadows()) == list(other.captures.shadows())
    assert one.captures.labels() == other.captures.labels()
    assert (one.captures.last(), list(one.ledger.read())) == (other.captures.last(), list(other.ledger.read()))
    assert one.snapshots.load("watch") == other.snapshots.load("watch")
    assert sorted(one.blobs) == sorted(other.blobs)
    assert all(one.blobs.get(name) == other.blobs.get(name) for name in one.blobs)


def test_a_restored_workspace_says_all_that_the_first_one_said(home: Path, tmp_path: Path) -> None:
    file, there = tmp_path / "rounds.tar", tmp_path / "there"
    told = saved(home, file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert (told["images"], told["missing"], told["size"]) == (20, [], file.stat().st_size)
    done = brought(file, there)
    assert (done["predictions"], done["labels"], done["images"]) == (20, 1, 20)
    with opened(home) as one, opened(there) as other:
        same(one, other)
        assert tracing.audit(other)["ok"]
        assert list(other.captures.record([film("next", other.blobs.put(b"next"))])) == [21]
        assert other.events.append("alarm", who="t", why="", evidence={}).seq == one.events.head() + 1
    for name in ("keys.json", "secret"):
        assert (there / name).stat().st_mode & 0o777 == 0o600
    assert (there / "data" / "d1" / "pack-0").read_bytes() == bytes(range(256)) * 100
    assert not (there / "data" / "d1" / "cache").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_commands_say_what_was_kept_and_where_it_is(home: Path, tmp_path: Path) -> None:
    file, there = tmp_path / "rounds.tar", tmp_path / "there"
    said = rounds(home, "backup", file, "--json").json
    assert (said["file"], said["images"], said["size"]) == (str(file), 20, file.stat().st_size)
    said = rounds(home, "restore", file, "--home", there, "--json").json
    assert (said["home"], said["predictions"], said["images"]) == (str(there), 20, 20)
    assert rounds(there, "audit", "--json").json["ok"]
    again = rounds(home, "restore", file)
    assert (again.code, "never over it" in again.err) == (2, True)
    assert "keep it safe" in rounds(home, "backup", file).out


def test_what_answers_had_acknowledged_is_in_the_backup(home: Path, tmp_path: Path) -> None:
    import numpy as np

    writer = journal.Journal(home / journal.FOLDER, 10**9)
    films = [[f"late{i}", 0, 1.0, None, None, False] for i in range(3)]
    numbers = np.full((3, 2), 0.5), np.zeros((3, 2), np.float32), np.zeros((3, 1), np.float32)
    batch = journal.Batch("v1", "b", ("normal", "opacity"), films, *numbers)
    writer.append(batch, [b"one", b"two", b"three"], AT)
    saved(home, tmp_path / "rounds.tar")
    writer.close()
    assert brought(tmp_path / "rounds.tar", tmp_path / "there")["predictions"] == 23


def test_a_backup_under_load_restores_to_films_that_all_have_their_image(home: Path, tmp_path: Path) -> None:
    """Answers are journalled and handed over by another process, all the time."""
    load = subprocess.Popen([sys.executable, "-c", LOAD, str(home)], stdout=subprocess.PIPE, text=True)
    try:
        assert load.stdout is not None
        said = [int(load.stdout.readline()) for _ in range(10)]
        for i in range(3):
            saved(home, tmp_path / f"{i}.tar")
        while True:
            said.append(int(load.stdout.readline()))
            if said[-1] > 400:
                break
    finally:
        load.kill()
        load.wait(30)
    for i in range(3):
        done = brought(tmp_path / f"{i}.tar", tmp_path / f"there{i}")
        assert done["missing"] == []
        assert done["predictions"] >= 20 + said[9]
        with opened(tmp_path / f"there{i}") as ports:
            rows = ports.captures.since(0, 1_000_000)
            assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
            assert {row.image for row in rows} == set(ports.blobs)
            assert all(digest(ports.blobs.get(row.image)) == row.image for row in rows)


def test_a_subject_that_is_forgotten_meanwhile_is_not_in_the_backup(home: Path, tmp_path: Path) -> None:
    class Forgetting:
        """The store of the workspace; on the way to the tenth image somebody asks to be forgotten."""

        def __init__(self, blobs: Blobs, ask: Callable[[], Any]) -> None:
            self._blobs, self._ask, self._n = blobs, ask, 0

        def get(self, name: str) -> bytes:
            self._n += 1
            if self._n == 10:
                self._ask()
            return self._blobs.get(name)

        def __iter__(self) -> Iterator[str]:
            return iter(self._blobs)

        def put(self, data: bytes) -> str:
            return self._blobs.put(data)

    with opened(home) as ports:
        watched = replace(ports, blobs=Forgetting(ports.blobs, lambda: erase(ports, "s1", "test")))  # type: ignore[arg-type]
        rows = partial(moving.take_rows, Settings(home=home))
        backing.backup(watched, tmp_path / "rounds.tar", rows=rows, database=moving.take_file)
        name = pseudonym(ports.secret, "s1")
    with tarfile.open(tmp_path / "rounds.tar") as packed:
        names = {name.rpartition("/")[2] for name in packed.getnames()}
    assert [i for i in range(20) if digest(f"film {i}".encode()) not in names] == [1, 4, 7, 10, 13, 16, 19]
    brought(tmp_path / "rounds.tar", tmp_path / "there")
    with opened(tmp_path / "there") as ports:
        assert not [row for row in ports.captures.since(0) if row.subject == name]
        assert {row.image for row in ports.captures.since(0)} == set(ports.blobs)
        assert [event.kind for event in ports.events.read(kinds=("erased",))] == ["erased"]


def test_a_workspace_that_lost_an_image_says_so_and_can_be_kept_all_the_same(home: Path, tmp_path: Path) -> None:
    with opened(home) as ports:
        ports.blobs.delete(digest(b"film 3"))
        ports.captures.drop_images([digest(b"film 4")])
        ports.blobs.delete(digest(b"film 4"))
    assert saved(home, tmp_path / "rounds.tar")["missing"] == ["p3"]
    assert brought(tmp_path / "rounds.tar", tmp_path / "there")["images"] == 18


def rewritten(file: Path, change: Callable[[str, bytes], tuple[str, bytes] | None], *, sums: bool) -> None:
    """The same members, some changed; with `sums`, by somebody who makes the sums anew."""
    with tarfile.open(file) as packed:
        members = [(m.name, packed.extractfile(m).read()) for m in packed]  # type: ignore[union-attr]
    kept = [made for name, data in members if (made := change(name, data)) is not None]
    if sums:
        lines = "".join(f"{hashlib.sha256(d).hexdigest()}  {n}\n" for n, d in kept if n != backing.SUMS)
        kept = [(n, lines.encode() if n == backing.SUMS else d) for n, d in kept]
    with tarfile.open(file, "w") as packed:
        for name, data in kept:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            packed.addfile(info, io.BytesIO(data))


def tampered(name: str, data: bytes) -> tuple[str, bytes]:
    if name != backing.ROWS:
        return name, data
    import sqlite3
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".db") as file:
        Path(file.name).write_bytes(data)
        raw = sqlite3.connect(file.name)
        raw.execute("DROP TRIGGER events_never_change")
        raw.execute("UPDATE events SET why = 'because' WHERE seq = 2")
        raw.commit()
        raw.close()
        return name, Path(file.name).read_bytes()


@pytest.mark.parametrize(
    ("change", "sums", "message"),
    [
        (lambda n, d: (n, d[:-1] + b"x" if n.endswith("pack-0") else d), False, "the bytes have changed"),
        (lambda n, d: None if n.endswith("pack-0") else (n, d), False, "the bytes have changed.*got none"),
        (lambda n, d: None if n == backing.SUMS else (n, d), False, "ends early, or is no backup.*SHA256SUMS"),
        (lambda n, d: (n, b"other" if "blobs/" in n else d), True, "bytes under another name"),
        (lambda n, d: None if digest(b"film 3") in n else (n, d), True, "p3: the image of a film is missing"),
        (lambda n, d: None if n.endswith("model.onnx") else (n, d), True, "model.onnx"),
        (lambda n, d: ("home/../../outside" if n.endswith("keys.json") else n, d), True, "a member that no backup has"),
        (lambda n, d: ("/etc/outside" if n.endswith("keys.json") else n, d), True, "a member that no backup has"),
        (tampered, True, "the chain of the log is broken"),
    ],
)
def test_a_backup_that_does_not_hold_together_is_named_and_nothing_is_placed(
    home: Path, tmp_path: Path, change: Any, sums: bool, message: str
) -> None:
    file = tmp_path / "rounds.tar"
    saved(home, file)
    rewritten(file, change, sums=sums)
    with pytest.raises(DamagedData, match=rf"(?s){message}"):
        brought(file, tmp_path / "there")
    assert {path.name for path in tmp_path.iterdir()} == {"here", "rounds.tar"}


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_backup_that_was_cut_short_is_named(home: Path, tmp_path: Path, share: float) -> None:
    file = tmp_path / "rounds.tar"
    size = saved(home, file)["size"]
    file.write_bytes(file.read_bytes()[: int(size * share)])
    with pytest.raises(DamagedData, match=r"rounds\.tar is damaged\n.*(ends early|bytes have changed)"):
        brought(file, tmp_path / "there")


def test_a_backup_is_never_restored_over_something_nor_from_nothing(home: Path, tmp_path: Path) -> None:
    saved(home, tmp_path / "rounds.tar")
    with pytest.raises(BadOverride, match=r"never over it\n.*something is there"):
        brought(tmp_path / "rounds.tar", home)
    with pytest.raises(BadOverride, match="no such file"):
        brought(tmp_path / "none.tar", tmp_path / "there")
    with pytest.raises(BadOverride, match=r"cannot lie in what it holds\n.*inside the workspace"):
        saved(home, home / "backup.tar")
    with pytest.raises(NotWritable, match="cannot be written"):
        saved(home, tmp_path / "no folder" / "rounds.tar")
    rewritten(
        tmp_path / "rounds.tar",
        lambda n, d: (n, json.dumps({**json.loads(d), "format": 9}).encode() if n == backing.ABOUT else d),
        sums=True,
    )
    with pytest.raises(BadOverride, match=r"another version wrote it.*expected format 1; got 9"):
        brought(tmp_path / "rounds.tar", tmp_path / "there")


def test_another_key_than_the_workspaces_is_refused(home: Path, tmp_path: Path) -> None:
    saved(home, tmp_path / "rounds.tar")
    with pytest.raises(BadOverride, match=r"another key is set\n.*ROUNDS_SECRET"):
        brought(tmp_path / "rounds.tar", tmp_path / "there", Settings(home=tmp_path / "there", secret="x" * 16))
    assert not (tmp_path / "there").exists()


def test_rows_and_images_move_to_a_server_and_an_object_store_and_back(
    home: Path, tmp_path: Path, postgres_url: str
) -> None:
    import psycopg

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE moved")
    address = postgres_url.rsplit("/", 1)[0] + "/moved"
    saved(home, tmp_path / "one.tar")
    with s3_server() as store:
        bucket = store.make_bucket("films")
        with store.reached():
            there = Settings(home=tmp_path / "there", rows=address, blobs=f"{bucket}/ward")
            brought(tmp_path / "one.tar", tmp_path / "there", there)
            assert not {"rounds.db", "blobs"} & {path.name for path in (tmp_path / "there").iterdir()}
            assert len(list(RemoteBlobs(f"{bucket}/ward"))) == 20
            with opened(home) as one, open_ports(there) as other:
                same(one, other)
                other.ledger.book(Cost("train", "d2", AT, 1.0, 1.0))
                other.events.append("alarm", who="t", why="", evidence={})
            saved(tmp_path / "there", tmp_path / "two.tar", there)
            with pytest.raises(NotWritable, match=r"is not empty\n.*rows are kept there"):
                brought(tmp_path / "two.tar", tmp_path / "third", replace_home(there, tmp_path / "third"))
            brought(tmp_path / "two.tar", tmp_path / "back")
            with open_ports(there) as one, opened(tmp_path / "back") as other:
                same(one, other)


def replace_home(settings: Settings, home: Path) -> Settings:
    return settings.model_copy(update={"home": home})


def test_images_that_never_hold_still_end_in_a_word(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = threading.Event()

    def restless() -> None:
        with opened(home) as ports:
            while not ending.is_set():
                ports.events.append("images_dropped", who="t", why="", evidence={})
                time.sleep(0.001)

    one = threading.Thread(target=restless)
    one.start()
    try:
        with pytest.raises(StoreAway, match=r"did not hold still\n.*images went while they were copied"):
            saved(home, tmp_path / "rounds.tar")
    finally:
        ending.set()
        one.join()
    assert {path.name for path in tmp_path.iterdir()} == {"here"}
