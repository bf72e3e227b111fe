"""A real PostgreSQL server of a test's own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
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


class Server:
    """A server on a free loopback port, which may be ended and started again; its own process, ended by its id."""

    def __init__(self, folder: Path) -> None:
        programs = postgres_programs()
        assert programs is not None
        self._programs, self._folder = programs, folder
        if os.geteuid() == 0:
            folder.chmod(0o755)
            shutil.chown(folder, "nobody")
        made = ["-D", folder / "data", "-U", "rounds", "--auth=trust", "-E", "UTF8", "--no-sync"]
        subprocess.run([*as_nobody(), programs / "initdb", *made], check=True, capture_output=True, cwd="/")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"postgresql://rounds@127.0.0.1:{self._port}/postgres"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = self._folder / "log"
        options = [
            "-D",
            str(self._folder / "data"),
            "-p",
            str(self._port),
            "-k",
            "",
            "-c",
            "listen_addresses=127.0.0.1",
        ]
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [
                    *as_nobody(),
                    self._programs / "postgres",
                    *options,
                    "-c",
                    "listen_addresses=127.0.0.1",
                    "-c",
                    "fsync=off",
                ],
                stdout=out,
                stderr=out,
                cwd="/",
                start_new_session=True,
            )
        _await(self._port, self._process, log)

    def stop(self, *, fast: bool = True) -> None:
        """End it: at once with its connections cut, or (not `fast`) once the last of them has gone."""
        if self._process is not None and self._process.poll() is None:
            # runuser passes SIGTERM on and nothing else
            postmaster = int((self._folder / "data" / "postmaster.pid").read_text().split()[0])
            os.kill(postmaster, signal.SIGINT if fast else signal.SIGTERM)
            self._process.wait(30)


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A real server of its own, on a free loopback port, stopped by its process id."""
    server = Server(folder)
    try:
        server.start()
        yield server.url
    finally:
        server.stop()


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


def needed() -> None:
    """Skip the test where there is no PostgreSQL, and name what to install."""
    if postgres_programs() is None:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("no PostgreSQL driver here: pip install 'psycopg[binary]'")


@pytest.fixture
def postgres_server() -> Iterator[Server]:
    """A server of the test's own, which it may end and start again."""
    needed()
    folder = Path(tempfile.mkdtemp(prefix="rounds-postgres-", dir="/tmp"))
    server = Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    needed()
    # pytest's own folders are closed to other users
    folder = Path(tempfile.mkdtemp(prefix="rounds-postgres-", dir="/tmp"))
    try:
        with postgres(folder) as url:
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)
