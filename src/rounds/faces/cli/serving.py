"""The HTTP face, started as a process of its own: faces do not import each other."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rounds.core.errors import Fault, WorldFault

READY_S = 60.0


def serve(host: str, port: int, workers: int | None = None) -> None:
    """Become the HTTP server: this process goes on as `python -m rounds.faces.web`."""
    command = [sys.executable, "-m", "rounds.faces.web", "--host", host, "--port", str(port)]
    command += [] if workers is None else ["--workers", str(workers)]
    os.execv(sys.executable, command)  # noqa: S606 - replacing ourselves is the point: one process, signals arrive


@contextmanager
def server(home: Path, port: int, log: Path) -> Iterator[tuple[str, int]]:
    """A server on a loopback port for the length of the block; its address and process id, once it is ready.

    Raises WorldFault with the end of its log where it is not ready within a minute.
    """
    command = [sys.executable, "-m", "rounds", "--home", str(home), "serve", "--port", str(port)]
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink)
        try:
            address = f"http://127.0.0.1:{port}"
            _await_ready(process, address, log)
            yield address, process.pid
        finally:
            process.terminate()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    end = time.monotonic() + READY_S
    while process.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{address}/health/ready", timeout=2):  # noqa: S310 - loopback
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    tail = log.read_text(errors="replace")[-500:]
    raise WorldFault(
        "the server did not come up", [Fault("not ready", address, "200 from /health/ready", tail, f"see {log}")]
    )
