"""Promotions that are asked for over HTTP: the gate runs in a process of its own, so that answers go on as before.

    python -m rounds.faces.web.operate

It reads one JSON object {"ref", "data", "overrule", "who"} from stdin, and writes the gate's answer or the error.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rounds.core.errors import Fault, GateRefused, LeakFound, OurFault, Refused, RoundsError, UnknownId, WorldFault
from rounds.core.ids import plain
from rounds.core.ports import Ports

PATIENCE_S = 900.0
_turn = asyncio.Semaphore(1)


async def promote(home: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Ask the gate in a child process; the answer of `rounds promote`.

    Raises Refused with the gate's report, UnknownId, and WorldFault where another is being judged.
    """
    if _turn.locked():
        raise WorldFault("another bundle is being judged", [Fault("one at a time", next="send the request again")])
    async with _turn:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "rounds.faces.web.operate",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "ROUNDS_HOME": str(home)},
            # a bundle is named by its digest: no folder here is to be taken for one
            cwd="/",
        )
        try:
            async with asyncio.timeout(PATIENCE_S):
                out, _ = await child.communicate(json.dumps(dict(asked)).encode())
        except TimeoutError as error:
            raise WorldFault("the gate took too long", [Fault("not judged", "", f"{PATIENCE_S:g} s")]) from error
        finally:
            if child.returncode is None:
                child.kill()
    return _read(out)


def roll_back(ports: Ports, to: str | None, why: str, who: str) -> dict[str, Any]:
    """Put the version before, or `to`, back in service; what deciding needs is loaded in the thread that asks."""
    from rounds.loop import gating

    return gating.roll_back(ports, to=to, why=why, who=who)


def _read(out: bytes) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(out)
    except ValueError as error:
        raise OurFault("the gate's process ended without an answer") from error
    if "error" not in told:
        return told
    said, code = told.pop("error"), told.pop("exit_code")
    message, faults = said["message"], [Fault(**fault) for fault in said["faults"]]
    if said["kind"] == LeakFound.__name__:
        raise LeakFound(message, faults, leaks=[(made, tested) for made, tested in told["leaks"]])
    if said["kind"] == GateRefused.__name__:
        raise GateRefused(message, faults, report=told)
    known: dict[str, type[RoundsError]] = {kind.__name__: kind for kind in (Refused, UnknownId)}
    other = WorldFault if code == WorldFault.exit_code else OurFault
    raise known.get(said["kind"], other)(message, faults)


def main() -> None:
    """Judge and promote in this process."""
    from rounds.loop import gating
    from rounds.wiring.serving import open_ports
    from rounds.wiring.settings import Settings

    asked = json.load(sys.stdin)
    try:
        with open_ports(Settings()) as ports:
            told = gating.promote(ports, asked["ref"], data=asked["data"], overrule=asked["overrule"], who=asked["who"])
    except RoundsError as error:
        told = {**error.public(), "exit_code": error.exit_code}
    sys.stdout.write(json.dumps(plain(told), allow_nan=False))


if __name__ == "__main__":
    main()
