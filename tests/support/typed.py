"""Guides as a reader follows them: the lines of their shell blocks, typed in their order at a desk."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
# What stays in the foreground until somebody ends it.
_SERVERS = ("rounds serve", "mlflow server", "mlflow ui", "bentoml serve")
_PORT = re.compile(r"(?:--port |127\.0\.0\.1:)(\d+)")


class Line(NamedTuple):
    """A command, and the exit code that its comment promises."""

    text: str
    code: int = 0


def blocks(guide: str) -> list[list[Line]]:
    """The commands of each ```sh block of a file of the repository, without comments, continued lines as one."""
    text = (ROOT / guide).read_text()
    found = [block.replace("\\\n", " ") for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)]
    return [[_line(text) for text in block.splitlines() if text.strip()] for block in found]


def _line(text: str) -> Line:
    command, _, comment = text.partition(" #")
    promised = re.search(r"exit code (\d)", comment)
    return Line(command.strip(), int(promised[1]) if promised else 0)


class Desk:
    """A folder in which commands are typed in one shell: `rounds` is on the PATH, `export` holds for what follows.

    `instead` says what is typed in place of a text, such as a free port for the one that the guide names.
    """

    def __init__(self, place: Path, instead: Mapping[str, str] | None = None) -> None:
        self.place, self.instead = place, dict(instead or {})
        given = {key: value for key, value in os.environ.items() if not key.startswith(("ROUNDS_", "MLFLOW_"))}
        self.environment = given | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        self._servers: list[subprocess.Popen[bytes]] = []

    def type(self, line: str, limit_s: float = 600) -> subprocess.CompletedProcess[str]:
        """Type one line and wait for its end; a server's end is not waited for, but that it listens."""
        line = line.removeprefix(".venv/bin/")
        for text, other in self.instead.items():
            line = line.replace(text, other)
        if line.startswith("export "):
            name, _, value = line.removeprefix("export ").partition("=")
            self.environment[name] = shlex.split(value)[0]
            return subprocess.CompletedProcess(line, 0, "", "")
        if line.startswith(_SERVERS):
            self._serve(line)
            return subprocess.CompletedProcess(line, 0, "", "")
        return subprocess.run(
            ["bash", "-c", line], cwd=self.place, env=self.environment, capture_output=True, text=True, timeout=limit_s
        )

    def type_all(self, lines: list[Line]) -> dict[str, str]:
        """Type the lines in their order; what each printed. All that end otherwise than promised are shown."""
        said, broken = dict[str, str](), []
        for line in lines:
            done = self.type(line.text)
            said[line.text] = done.stdout + done.stderr
            if done.returncode != line.code:
                broken.append(f"$ {line.text}\n{said[line.text]}\nexit code {done.returncode}, promised {line.code}")
        assert not broken, "\n".join(broken)
        return said

    def _serve(self, line: str, limit_s: float = 180) -> None:
        found = _PORT.findall(line)
        port, log = int(found[-1]), self.place / "server.log"
        with log.open("ab") as out:
            server = subprocess.Popen(
                ["bash", "-c", f"exec {line}"],
                cwd=self.place,
                env=self.environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._servers.append(server)
        until = time.monotonic() + limit_s
        while not _listens(port):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)

    def end_servers(self) -> None:
        """End what was started, by the groups that it leads."""
        for server in self._servers:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait(10)
        self._servers.clear()


@contextmanager
def desk(place: Path, instead: Mapping[str, str] | None = None) -> Iterator[Desk]:
    """A desk whose servers end with the block."""
    made = Desk(place, instead)
    try:
        yield made
    finally:
        made.end_servers()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
