"""The same loop in several processes, started with torchrun or Ray Train; they write to the run's folder, this process
reads there how they get on and keeps the record.

The folder holds, while they run, `job.json`, what they are to do, `told.jsonl`, what the first of them tells, and Ray's
notes. On several machines (RAY_ADDRESS) it and the data set must be on a disk that all of them see.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import rounds.core.errors
from rounds.core.errors import Fault, RoundsError, WorldFault
from rounds.core.ids import canonical, restore, write_whole
from rounds.core.records import DatasetVersion
from rounds.core.specs import TrainSpec
from rounds.imaging.packed import Rows
from rounds.train.learn import Job, Learnt, Told

JOB, TOLD, RAY = "job.json", "told.jsonl", "ray"
_POLL_S, _END_S, _LINES = 0.1, 20.0, 12


def launched(job: Job, told: Told) -> Learnt:
    """Run the job in `job.spec.launcher.processes` processes; they end with this one, however it ends.

    Raises what the loop raises in one of them, WorldFault where one dies without a word.
    """
    write_job(job)
    command = _COMMANDS[job.spec.launcher.name](str(job.place / JOB), job.spec.launcher.processes)
    with tempfile.TemporaryDirectory(prefix="rounds-") as scratch, tempfile.TemporaryFile() as words:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=words, stderr=words, env=_environment(scratch))
        try:
            learnt = _follow(job.place / TOLD, child, told)
        finally:
            _end(child)
            shutil.rmtree(job.place / RAY, ignore_errors=True)
        if learnt is None:
            words.seek(0)
            raise _died(job.spec, child.returncode, words.read().decode(errors="replace"))
    for name in (JOB, TOLD):
        (job.place / name).unlink(missing_ok=True)
    return learnt


def write_job(job: Job) -> None:
    """Write the job into the run's folder."""
    rows = [{"index": part.index.tolist(), "labels": part.labels.tolist()} for part in job.rows or ()]
    (job.place / TOLD).write_bytes(b"")
    said = {"spec": job.spec, "dataset": job.dataset, "epoch": job.epoch, "rows": rows, "start": job.start}
    write_whole(job.place / JOB, canonical(said))


def read_job(path: Path, trainer: dict[str, Any]) -> Job:
    """The job of a run's folder, with further words to Lightning's Trainer."""
    found = json.loads(path.read_bytes())
    rows = [
        Rows(np.array(part["index"], np.int64), np.array(part["labels"], np.int64), [], [], [], [])
        for part in found["rows"]
    ]
    return Job(
        restore(TrainSpec, found["spec"]),
        restore(DatasetVersion, found["dataset"]),
        path.parent,
        found["epoch"],
        (rows[0], rows[1]) if rows else None,
        trainer,
        restore(Path | None, found["start"]),
    )


def _torchrun(job: str, processes: int) -> list[str]:
    here = ["--standalone", "--local-addr=127.0.0.1", f"--nproc-per-node={processes}"]
    return [sys.executable, "-m", "torch.distributed.run", *here, "-m", "rounds.train.rank", job]


def _ray(job: str, processes: int) -> list[str]:
    return [sys.executable, "-m", "rounds.train.onray", job, str(processes)]


_COMMANDS = {"torchrun": _torchrun, "ray": _ray}


def _environment(scratch: str) -> dict[str, str]:
    """What the processes need to know: gloo and Ray keep to this machine and to a folder of their own."""
    alone = {} if os.environ.get("RAY_ADDRESS") else {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    quiet = {"TORCH_CPP_LOG_LEVEL": "ERROR", "OMP_NUM_THREADS": "1", "RAY_TMPDIR": scratch, "PYTHONUNBUFFERED": "1"}
    return {**quiet, **alone, **os.environ}


def _follow(path: Path, child: subprocess.Popen[bytes], told: Told) -> Learnt | None:
    """Hand on what is told until it is over; None where the processes ended before."""
    for line in _lines(path, child):
        if "step" in line:
            told.step(line["step"])
        elif "epoch" in line:
            told.epoch(line["epoch"], line["figures"], None)
        elif "learnt" in line:
            return restore(Learnt, line["learnt"])  # type: ignore[no-any-return]
        else:
            raise _restored(line["error"])
    return None


def _lines(path: Path, child: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        rest, ended = b"", False
        while not ended:
            ended = child.poll() is not None
            *whole, rest = (rest + file.read()).split(b"\n")
            yield from map(json.loads, whole)
            if not whole and not ended:
                time.sleep(_POLL_S)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Close what the processes listen to, which ends them; then wait."""
    assert child.stdin is not None
    child.stdin.close()
    try:
        child.wait(_END_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _restored(error: dict[str, Any]) -> RoundsError:
    """The error that another process raised."""
    kind = getattr(rounds.core.errors, error["kind"])
    raised: RoundsError = kind(error["message"], [Fault(**fault) for fault in error["faults"]])
    return raised


def _died(spec: TrainSpec, code: int, words: str) -> WorldFault:
    # what torchrun itself adds hides what the process said
    said = [line for line in words.partition("torch/distributed/elastic")[0].splitlines() if line.strip()]
    tail = "\n".join(said[-_LINES:])
    fault = Fault("a process ended", spec.launcher.name, "figures of every epoch", f"exit status {code}\n{tail}")
    return WorldFault("the training did not come to its end", [fault])
