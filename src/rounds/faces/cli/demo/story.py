"""The story: every step happens for real, and every number in it was measured while it did."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rounds.core.errors import CallerFault, Fault
from rounds.core.ids import plain, write_whole
from rounds.faces.cli import say
from rounds.faces.cli.demo import chapters, memory
from rounds.faces.cli.demo.stage import Stage, empty_figures
from rounds.faces.cli.serving import server
from rounds.loop import tracing
from rounds.report.story import story_page

CHAPTERS: tuple[tuple[str, Callable[[Stage], None]], ...] = (
    ("Films come in, and are checked and split", chapters.prepare),
    ("A model is trained", chapters.train),
    ("It is measured, and passes the gate", chapters.first_champion),
    ("It serves, and nothing is wrong", chapters.clean_traffic),
    ("The scanner changes", chapters.shifted_traffic),
    ("Audited labels arrive, and the cheapest cure is tried", chapters.cure),
    ("A worse candidate and a better one come to the gate", chapters.candidates),
    ("The new champion is taken back", chapters.roll_back),
    ("One answer is traced, and the log is verified", chapters.trace_and_audit),
)
BEFORE_SERVING = 3


def tell(source: str | None, out: Path, seed: int) -> dict[str, Any]:
    """Live through the loop in a fresh workspace below `out` and write report.html and, last, figures.json.

    Offline; at most 3 minutes on phantoms on 2 cores. Raises CallerFault where `out` holds something else than a demo.
    """
    begun = time.perf_counter()
    home = _fresh(out) / "workspace"
    from rounds.wiring.settings import Settings
    from rounds.wiring.training import open_ports

    with open_ports(Settings(home=home)) as ports:
        figures = empty_figures()
        stage = Stage(ports, source or f"phantom:n={chapters.PHANTOMS},seed={seed}", seed, figures)
        _play(stage, CHAPTERS[:BEFORE_SERVING], 1)
        with server(home, _free_port(), out / "server.log") as (address, pid):
            stage.open_ward(address)
            _play(stage, CHAPTERS[BEFORE_SERVING:], BEFORE_SERVING + 1)
            figures["peak_mb"] = memory.peak_mb(pid)
        figures["seconds"], figures["ok"] = time.perf_counter() - begun, stage.ok
        history = tracing.history(ports)["events"]
    page = story_page(figures, stage.steps, history=history, source=stage.source, citation=stage.citation)
    say.page(out / "report.html", page)
    write_whole(out / "figures.json", json.dumps(plain(figures), indent=2, allow_nan=False).encode())
    return figures


def _play(stage: Stage, chapters_: tuple[tuple[str, Callable[[Stage], None]], ...], first: int) -> None:
    for number, (title, chapter) in enumerate(chapters_, first):
        with stage.step(number, len(CHAPTERS), title):
            chapter(stage)


def _fresh(out: Path) -> Path:
    """An empty folder; an older demo in it is replaced, anything else is left alone."""
    ours = {"figures.json", "report.html", "workspace", "server.log"}
    strangers = sorted(entry.name for entry in out.iterdir() if entry.name not in ours) if out.is_dir() else []
    if strangers or out.is_file():
        fault = Fault(
            "not a demo's folder",
            str(out),
            "an empty or new folder",
            ", ".join(strangers[:5]),
            "name another: --out DIR",
        )
        raise CallerFault(f"{out} holds something else", [fault])
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    return out


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
