"""Worker processes of a server, started with nothing loaded but what starting takes."""

from __future__ import annotations

import socket
import subprocess
import sys

Worker = tuple[socket.socket, "subprocess.Popen[bytes]"]


def start() -> Worker:
    """A worker (`loop/answering`) in a process of its own, and our end of the line to it."""
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-m", "rounds.loop.answering", str(theirs.fileno())]
        return ours, subprocess.Popen(command, pass_fds=(theirs.fileno(),))


class Ahead:
    """Starts workers when asked; the first is on its way already, so that it loads while the server does."""

    def __init__(self) -> None:
        self._first: Worker | None = start()

    def __call__(self) -> Worker:
        """The next worker."""
        first, self._first = self._first, None
        return first or start()

    def close(self) -> None:
        """Send the first one home, if nobody asked for it."""
        if self._first is not None:
            stream, process = self._first
            self._first = None
            stream.close()
            # It has nothing to lose, and would first load everything.
            process.kill()
            process.wait()
