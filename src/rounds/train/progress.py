"""The progress bar of a training run, on stderr."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class Bar:
    """A Rich bar over all steps that shows the last epoch's figures; silent where it is switched off."""

    def __init__(self, steps: int, *, shown: bool) -> None:
        columns = (TextColumn("train"), BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), disable=not shown)
        self._task = self._progress.add_task("", total=steps)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def step(self, done: int) -> None:
        """So many steps are done."""
        self._progress.update(self._task, completed=done)

    def epoch(self, number: int, epochs: int, figures: dict[str, float]) -> None:
        """An epoch is over, with these figures."""
        shown = "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
        self._progress.update(self._task, description=f"epoch {number}/{epochs}  {shown}")
