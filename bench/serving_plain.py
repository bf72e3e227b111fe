"""The project's server with something left out, to measure what that costs; the benchmark's alone.

python -m bench.serving_plain PORT [unkept] [unscored]    unkept: no answer is kept; unscored: no film is scored
"""

from __future__ import annotations

import socket
import subprocess
import sys
from functools import partial

import numpy as np


def leave_out(names: list[str]) -> None:
    """Change this process's parts, before any is used."""
    if "unscored" in names:
        from rounds.runtime.scores import Scorer

        def nothing(self: Scorer, pixels: np.ndarray, _outputs: object) -> np.ndarray:
            return np.zeros((len(pixels), len(self.scoring.names)), np.float32)

        Scorer.scores = nothing


def serve(port: int, names: list[str]) -> None:
    """Serve the workspace of ROUNDS_HOME."""
    from rounds.faces.web import __main__ as web
    from rounds.faces.web import app
    from rounds.loop import live, workers

    def start() -> workers.Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "bench.serving_plain", "--worker", str(theirs.fileno()), *names]
            return ours, subprocess.Popen(command, pass_fds=(theirs.fileno(),))

    workers.start = start
    if "unkept" in names:
        app.Live = partial(live.Live, keep=False)
    web.serve("127.0.0.1", port)


def main() -> None:
    """Be the server, or a worker of it."""
    if sys.argv[1] != "--worker":
        serve(int(sys.argv[1]), sys.argv[2:])
        return
    leave_out(sys.argv[3:])
    del sys.argv[3:], sys.argv[1]
    from rounds.loop import answering

    answering.main()


if __name__ == "__main__":
    main()
