"""A real PostgreSQL server of a test's own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def postgres_programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


def as_nobody() -> list[str]:
    """PostgreSQL refuses to run as root: the words that run a command as somebody else."""
    return ["runuser", "-u", "nobody", "--"] if os.geteuid() == 0 else []


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A real server of its own, on a free loopback port, stopped by its process id."""
    programs = postgres_programs()
    assert programs is not None
    if os.geteuid() == 0:
        folder.chmod(0o755)
        shutil.chown(folder, "nobody")
    data, log = folder / "data", folder / "log"
    initdb = [*as_nobody(), programs / "initdb", "-D", data, "-U", "rounds", "--auth=trust", "-E", "UTF8", "--no-sync"]
    subprocess.run(initdb, check=True, capture_output=True, cwd="/")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["-D", data, "-p", str(port), "-k", "", "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    with log.open("wb") as out:
        server = subprocess.Popen(
            [*as_nobody(), programs / "postgres", *options], stdout=out, stderr=out, cwd="/", start_new_session=True
        )
    try:
        _await(port, server, log)
        yield f"postgresql://rounds@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait(30)


def _await(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    until = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(f"postgresql://rounds@127.0.0.1:{port}/postgres").close()
            return
        except psycopg.OperationalError:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if postgres_programs() is None:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("no PostgreSQL driver here: pip install 'psycopg[binary]'")
    # pytest's own folders are closed to other users
    folder = Path(tempfile.mkdtemp(prefix="rounds-postgres-", dir="/tmp"))
    try:
        with postgres(folder) as url:
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)
