"""What the machine does while a run trains, read every few seconds by a thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import psutil
import torch

from rounds.core.errors import RoundsError

EVERY_S = 5.0
MB = 2**20


@contextmanager
def gauged(enter: Callable[[Mapping[str, float], int], None], place: Path, every: float = EVERY_S) -> Iterator[None]:
    """Hand the gauges, with the whole seconds since the block began, to `enter` every so many seconds and at its end.

    `system/cpu_percent` is this process's (100 is one core busy), `system/machine_cpu_percent` everybody's (100 is all
    cores busy), `system/disk_free_mb` that of the disk under `place`. A reading takes half a millisecond.
    """
    process, ended, began = psutil.Process(), Event(), time.monotonic()

    def read() -> None:
        # the first call of each only sets the mark, in this thread, that the next one measures from
        process.cpu_percent()
        psutil.cpu_percent()
        last = False
        while not last:
            last = ended.wait(every)
            # a tracker that fails is said by the training's own figures
            with suppress(RoundsError):
                enter(_gauges(process, place), round(time.monotonic() - began))

    thread = Thread(target=read, name="gauges", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _gauges(process: psutil.Process, place: Path) -> dict[str, float]:
    found = {
        "cpu_percent": process.cpu_percent(),
        "machine_cpu_percent": psutil.cpu_percent(),
        "rss_mb": process.memory_info().rss / MB,
        "memory_free_mb": psutil.virtual_memory().available / MB,
        "disk_free_mb": psutil.disk_usage(str(place)).free / MB,
        **_gpu(),
    }
    return {f"system/{name}": float(value) for name, value in found.items()}


def _gpu() -> dict[str, float]:
    """Of the GPU in use: this process's megabytes, and how busy it is where NVIDIA's own reader is installed."""
    if not torch.cuda.is_available() or not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return {}
    found = {"gpu_mb": torch.cuda.memory_reserved() / MB}
    with suppress(ModuleNotFoundError, RuntimeError):
        found["gpu_percent"] = float(torch.cuda.utilization())
    return found
