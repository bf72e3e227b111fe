"""Where the time of a training goes: torch's profiler over a few steps, as a table and as a trace."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch.profiler import ProfilerActivity, profile, schedule

TABLE, TRACE = "profile.txt", "trace.json"
# the first steps allocate and choose kernels; ten tell the rest
_WARM, _STEPS, _ROWS = 2, 10, 25


class Profiled(Callback):
    """Tells the profiler of each step, and of several processes lets the first speak."""

    first = True

    def __init__(self, place: Path) -> None:
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
        plan = schedule(wait=0, warmup=_WARM, active=_STEPS, repeat=1)
        self.watch, self._place = profile(activities=activities, schedule=plan, on_trace_ready=self._tell), place

    def on_fit_start(self, trainer: Trainer, *_: Any) -> None:
        self.first = trainer.is_global_zero

    def on_train_batch_end(self, *_: Any) -> None:
        self.watch.step()

    def _tell(self, watch: profile) -> None:
        if self.first:
            by = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
            table = watch.key_averages().table(sort_by=by, row_limit=_ROWS, max_name_column_width=48)
            (self._place / TABLE).write_text(table)
            watch.export_chrome_trace(str(self._place / TRACE))
            print(table, file=sys.stderr)


@contextmanager
def profiled(place: Path) -> Iterator[Profiled]:
    """Watch ten steps of the block, after two: profile.txt (also on stderr) and trace.json, which Chrome's tracing page
    and Perfetto open, in the run's folder."""
    profiled = Profiled(place)
    with profiled.watch:
        yield profiled
