"""Many films answered without a server: by all cores, or all nodes of a cluster, in constant memory, and with a file to
write to so that a run that was cut off goes on where it was.

Answers come in the order of the films, and are the same bytes whoever computes them and however often it was begun: ids
are made of bundle, path and film.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rounds.core.errors import BadOverride, Fault
from rounds.core.ids import plain
from rounds.core.ports import Ports
from rounds.core.records import Bundle
from rounds.loop import measuring, outfile, ruling
from rounds.loop.clerk import BATCH, Clerk, Job, key_of
from rounds.loop.crew import Answers, Order, processes
from rounds.loop.outfile import Chunk, Keep, Memory, Tell
from rounds.loop.walking import check, count, walk
from rounds.registry.catalogue import Catalogue

LAUNCHERS = ("local", "ray")
CHUNK, CHUNKS = 256, 32  # films of a chunk at most, and how many chunks a run has at least, if it can
LISTED = 10_000  # answers, and refusals, that one object says; more stand in the file alone
WORTH_S = 2.0  # seconds of work that are worth starting processes for

Progress = Callable[[int, int], None]


@dataclass
class _Run:
    """How far a run is: `count` films in all as it began, `here` the chunks that are kept from before, `chunks` as many
    as were met with, `done` films."""

    count: int
    keep: Keep
    progress: Progress
    here: set[int] = field(default_factory=set)
    chunks: int = 0
    done: int = 0

    @property
    def size(self) -> int:
        """Of the number of films alone: chunks must be the same however many processes there are."""
        return min(CHUNK, BATCH * max(1, -(-self.count // (BATCH * CHUNKS))))

    def films(self, number: int) -> int:
        """How many films a chunk has, if none came or went since the run began."""
        return max(0, min(self.size, self.count - number * self.size))

    def take(self, number: int, data: bytes) -> None:
        """Keep an answered chunk."""
        self.keep.put(number, data)
        self.done += self.films(number)
        self.progress(self.done, self.count)


def predict(
    ports: Ports,
    ref: str,
    paths: Sequence[Path],
    *,
    out: Path | None = None,
    workers: int | None = None,
    launcher: str = "local",
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Answer image files, and all files below folders; what cannot be decoded is listed with its reason.

    With `out`, a .jsonl, .csv or .parquet file, the answers are written there, whole at the end; until then they are
    kept in `out`.part, where the next run of the same bundle, films and limits goes on. Of more than 10,000 answers the
    result says only how many were `written`. `workers` processes, else one for each core that this process may use,
    share the work; `launcher` ray gives it to a cluster. `tell` hears what a person should know.
    """
    _check(workers, launcher)
    if out:
        outfile.check_format(out)
    check(paths)
    bundle = measuring.open_bundle(ports, ref)
    job = _job(ports, bundle, timed=out is None)
    besides = [out, outfile.part(out)] if out else []
    films = partial(walk, paths, besides)
    settings = {"format": 1, "bundle": job.digest, "version": job.version, "limits": plain(job.limits)}
    with outfile.kept_beside(out, settings, tell or _quiet) if out else nullcontext(Memory()) as keep:
        run = _Run(count(paths, besides), keep, progress or (lambda *_: None))
        if isinstance(keep, outfile.Folder):
            _go_on(run, keep, films(), tell or _quiet)
        orders = _orders(run, films())
        if launcher == "ray":
            from rounds.loop.onray import on_ray

            _by(run, on_ray(job, orders, workers or cores(), tell or _quiet))
        else:
            _on_this_machine(run, job, orders, workers or cores())
        return _ended(run, job.digest, bundle.classes, out)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _job(ports: Ports, bundle: Bundle, *, timed: bool) -> Job:
    version = next((v.version for v in Catalogue.of(ports.events.read()).versions if v.bundle == bundle.digest), "")
    return Job(bundle.path.resolve(), bundle.digest, version, ruling.in_force(ports).serve.limits, timed)


def _check(workers: int | None, launcher: str) -> None:
    faults = []
    if workers is not None and workers < 1:
        faults.append(Fault("nobody would work", "--workers", "1 or more", str(workers)))
    if launcher not in LAUNCHERS:
        faults.append(Fault("no such launcher", "--launcher", " or ".join(LAUNCHERS), launcher))
    if faults:
        raise BadOverride("the films cannot be answered so", faults)


def _orders(run: _Run, films: Iterator[str], *, kept: bool = False) -> Iterator[Order]:
    """The chunks that are still to do, or those that may be kept, taken from the films as they are asked for."""
    for number in itertools.count():
        paths = list(itertools.islice(films, run.size))
        if not paths:
            return
        run.chunks = number + 1
        if (number in run.here) is kept:
            yield number, paths


def _go_on(run: _Run, keep: outfile.Folder, films: Iterator[str], tell: Tell) -> None:
    """Find the chunks that a run before this one has answered, of films that lie there as they did."""
    found = {number: key for number in range(-(-run.count // run.size)) if (key := keep.key(number)) is not None}
    if not found:
        return
    run.here = set(found)
    run.here = {number for number, paths in _orders(run, films, kept=True) if key_of(paths) == found[number]}
    run.done = sum(map(run.films, run.here))
    tell(f"going on: {run.done} of {run.count} films are answered already")
    if len(run.here) < len(found):
        tell(f"{len(found) - len(run.here)} of {len(found)} chunks hold films that have changed: answering them anew")


def _on_this_machine(run: _Run, job: Job, orders: Iterator[Order], workers: int) -> None:
    """Answer here, until it is known that more processes would pay; then in these."""
    clerk = Clerk(job)
    begun, before = time.perf_counter(), run.done
    for number, paths in orders:
        run.take(number, clerk.answer(paths))
        left_s = (time.perf_counter() - begun) / max(1, run.done - before) * (run.count - run.done)
        if workers > 1 and left_s > WORTH_S:
            break
    else:
        return
    del clerk
    _by(run, processes(job, orders, min(workers, -(-run.count // run.size))))


def _by(run: _Run, answers: Answers) -> None:
    with closing(answers) as coming:
        for number, data in coming:
            run.take(number, data)


def _ended(run: _Run, bundle: str, classes: Sequence[str], out: Path | None) -> dict[str, Any]:
    """Write what there is to write, and say what there is to say."""
    tally = _Tally(LISTED if out else None)
    chunks = tally.over(map(run.keep.get, range(run.chunks)))
    if out:
        outfile.write(out, chunks, classes)
        if tally.refusals > LISTED:
            outfile.write_refused(out, map(run.keep.get, range(run.chunks)))
        outfile.drop(out)
    else:
        for _ in chunks:
            pass
    predictions = [json.loads(line) for lines in tally.lines for line in lines.splitlines()]
    answer: dict[str, Any] = {"bundle": bundle, "predictions": predictions, "refused": tally.refused}
    if tally.answered > len(predictions):
        answer["written"] = tally.answered
    if tally.refusals > len(tally.refused):
        answer["refused_count"] = tally.refusals
    return answer


class _Tally:
    """Counts chunks as they pass, and holds on to what the result lists: `most` answers and refusals, None for all."""

    def __init__(self, most: int | None) -> None:
        self._most = most
        self.answered = self.refusals = 0
        self.lines, self.refused = list[bytes](), list[Mapping[str, str]]()

    def over(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            self.answered += chunk.answered
            self.refusals += len(chunk.refused)
            if self._most is None or self.answered <= self._most:
                self.lines.append(chunk.lines)
            else:
                self.lines.clear()
            self.refused += chunk.refused if self._most is None else chunk.refused[: self._most - len(self.refused)]
            yield chunk


def _quiet(_text: str) -> None:
    pass
