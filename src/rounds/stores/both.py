"""Several trackers as one: the first names the run, and each is told everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rounds.core.ports import Runs


class Both:
    """The port `Runs` over trackers that each see to their own failures."""

    def __init__(self, *trackers: Runs) -> None:
        self._trackers = trackers

    def start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str], run: str = "") -> str:
        """Open the run in each, under the id that the first gives it."""
        for tracker in self._trackers:
            run = tracker.start(name, params, tags, run)
        return run

    def reopen(self, run: str) -> None:
        """Let a run that ended go on."""
        for tracker in self._trackers:
            tracker.reopen(run)

    def log(self, run: str, metrics: Mapping[str, float], step: int) -> None:
        """Enter the figures of a step."""
        for tracker in self._trackers:
            tracker.log(run, metrics, step)

    def keep(self, run: str, file: Path, folder: str = "") -> None:
        """Store a file, or a folder whole."""
        for tracker in self._trackers:
            tracker.keep(run, file, folder)

    def finish(self, run: str, *, ok: bool) -> None:
        """Close a run as finished or failed."""
        for tracker in self._trackers:
            tracker.finish(run, ok=ok)

    def unfinished(self) -> Sequence[str]:
        """Runs whose process is gone, as any of them knows."""
        return list(dict.fromkeys(run for tracker in self._trackers for run in tracker.unfinished()))

    def mirror(self, model: str, versions: Sequence[Mapping[str, str]], champion: str | None) -> None:
        """Make the registries say the same."""
        for tracker in self._trackers:
            tracker.mirror(model, versions, champion)
