"""`python -m rounds.faces.web`: the HTTP face as a process; `rounds serve` becomes it."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from functools import partial
from typing import Any

from rounds.core.errors import RoundsError
from rounds.core.ports import Ports
from rounds.faces.web.server import run
from rounds.loop import ruling
from rounds.wiring.serving import open_ports
from rounds.wiring.settings import Settings


def main() -> int:
    """Serve until told to stop; the exit code of the contract."""
    parser = argparse.ArgumentParser(prog="rounds serve")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    opener = partial(open_ports, Settings())
    try:
        with opener() as ports:
            rules = ruling.in_force(ports)
        run(opener, replace(rules.serve, host=given.host, port=given.port), rules.monitor, observe)
    except RoundsError as error:
        sys.stderr.write(f"rounds: {error}\n")
        return error.exit_code
    return 0


def observe(ports: Ports) -> dict[str, Any]:
    """What the watch finds when it folds in what came until now; what only watching needs is imported when asked."""
    from rounds.loop import conduct

    observed = conduct.observe(ports)
    return observed.public() if observed else {"watching_since": None, "n": 0, "findings": []}


if __name__ == "__main__":
    sys.exit(main())
