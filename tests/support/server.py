"""A real server: its own process, a free loopback port, a workspace in a temporary folder."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PROGRAM = "import runpy; runpy.run_module('rounds.faces.web', run_name='__main__')"


@dataclass
class Served:
    """A server that runs: its address, its process, and the lines it has written to stderr so far."""

    process: subprocess.Popen[str]
    url: str = ""
    lines: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])


@contextmanager
def server(
    home: Path, program: str = PROGRAM, port: int = 0, *, environment: Mapping[str, str] | None = None
) -> Iterator[Served]:
    """Serve the workspace until the block ends, with more variables set where they are given; the server has said that
    it listens when the block begins."""
    given = {**os.environ, "ROUNDS_HOME": str(home), "OMP_NUM_THREADS": "1", **(environment or {})}
    process = subprocess.Popen(
        [sys.executable, "-c", program, "--port", str(port)], stderr=subprocess.PIPE, text=True, env=given
    )
    served = Served(process)
    listening = threading.Event()

    def listen() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            served.lines.append(line.rstrip("\n"))
            if " on http://" in line:
                served.url = line.split(" on ", 1)[1].split(",")[0].strip()
                listening.set()
        listening.set()

    reader = threading.Thread(target=listen)
    reader.start()
    try:
        assert listening.wait(90), served.lines
        assert served.url, "\n".join(served.lines)
        yield served
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(20)
        reader.join(5)
        assert process.stderr is not None
        process.stderr.close()
