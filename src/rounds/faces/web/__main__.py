"""`python -m rounds.faces.web --host H --port P`: the workspace of ROUNDS_HOME, served under the rules in force."""

from __future__ import annotations

import gc
import sys
from argparse import ArgumentParser
from contextlib import closing
from dataclasses import replace
from typing import Any

from rounds.core.errors import RoundsError
from rounds.core.ports import Ports
from rounds.core.specs import ServeSpec
from rounds.faces.web.listening import listen
from rounds.loop.workers import Ahead


def main() -> None:
    """Serve until told to stop; the exit code is 0, or that of the fault that is told on stderr."""
    options = ArgumentParser(prog="rounds serve", description=__doc__)
    options.add_argument("--host", default=ServeSpec.host)
    options.add_argument("--port", type=int, default=ServeSpec.port)
    options.add_argument("--workers", type=int, default=None)
    given = options.parse_args()
    try:
        serve(given.host, given.port, given.workers)
    except RoundsError as error:
        sys.stderr.write(f"rounds: {error}\n")
        sys.exit(error.exit_code)


def serve(host: str, port: int, workers: int | None = None) -> None:
    """Serve under the rules of the log; a port in use is known before anything heavy is loaded.

    `workers` is how many processes answer, where it is not left to the rules.

    Raises PortInUse, BadOverride where strangers could call without a key, and what opening the ports raises.
    """
    # Loading makes objects that stay: scanning them meanwhile costs a tenth of the time to the first answer.
    gc.disable()
    with listen(host, port) as sock, closing(Ahead()) as begin:
        from rounds.faces.web.guard import may_listen
        from rounds.faces.web.server import run, say
        from rounds.faces.web.waiting import opened
        from rounds.loop import ruling
        from rounds.loop.ruling import Rules
        from rounds.wiring.serving import open_ports
        from rounds.wiring.settings import Settings

        settings = Settings()
        may_listen(settings.home, host)

        def in_force() -> Rules:
            with open_ports(settings) as ports:
                return ruling.in_force(ports)

        rules = opened(in_force, sock, say)
        if rules is None:
            return
        count = rules.serve.workers if workers is None else workers
        if not count:
            begin.close()
        spec = replace(rules.serve, host=host, port=port, workers=count)
        run(lambda: open_ports(settings), spec, rules.monitor, observe, sock=sock, begin=begin)


def observe(ports: Ports) -> dict[str, Any]:
    """Look through the watch's eyes; what it needs is loaded when it is first asked for."""
    from rounds.loop import conduct

    found = conduct.observe(ports)
    return found.public() if found else {"watching_since": None, "n": 0, "findings": []}


if __name__ == "__main__":
    main()
