"""How a container starts: `rounds` with the arguments given, or the server on PORT; and what its health check asks.

Its file system has no shell that could put PORT into a command.
"""

from __future__ import annotations

import os
import sys
import tempfile
import urllib.request
from pathlib import Path


def main(arguments: list[str]) -> None:
    """Become `rounds`, or answer the health check with the exit code 0."""
    port = os.environ.get("PORT", "8000")
    if arguments == ["--healthy"]:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=4).close()
        return
    if arguments == ["--writable"]:
        tempfile.TemporaryFile(dir=os.environ["ROUNDS_HOME"]).close()
        return
    if not arguments:
        arguments = ["serve", "--host", os.environ.get("HOST", "0.0.0.0"), "--port", port]
        if workers := os.environ.get("WEB_CONCURRENCY"):
            arguments += ["--workers", workers]
    rounds = str(Path(sys.executable).with_name("rounds"))
    os.execv(sys.executable, [sys.executable, rounds, *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
