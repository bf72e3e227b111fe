"""What a run leaves behind: its folder on disk, and its entry in the experiment tracker."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from rounds.core.errors import Fault, NotWritable, UnknownId
from rounds.core.ids import canonical, digest, new_id, plain, restore, write_whole
from rounds.core.ports import Runs
from rounds.core.records import DatasetVersion
from rounds.core.specs import TrainSpec
from rounds.nets.network import Network
from rounds.nets.weights import save_weights
from rounds.train.figures import curve_png
from rounds.train.gauges import gauged
from rounds.train.profile import TABLE, TRACE
from rounds.train.resume import Phase, State, held, write_state
from rounds.train.surroundings import code_changes, environment

FIGURES = ("loss", "auc", "accuracy")
WEIGHTS = "weights.pt"
KEPT = ("config.json", "environment.json", "code.diff", "curve.csv", "curve.png", WEIGHTS, TABLE, TRACE)
# a patch that is larger says less than the files themselves
MAX_PATCH = 2**20


class Record:
    """One run while it trains, in `place`. `recorded` opens and closes it.

    On disk: config.json, environment.json, code.diff (where the code was changed since its revision), weights.pt and
    state.json (whole, after each epoch), curve.csv. A run that is resumed goes on behind the last epoch that is whole.
    """

    def __init__(self, run: str, place: Path, spec: TrainSpec, dataset: DatasetVersion, runs: Runs | None) -> None:
        self.run, self.place, self.checkpoint = run, place, place / WEIGHTS
        self._spec, self._classes, self._runs = spec, len(dataset.classes), runs
        self.state = _state(place, State(run, epoch=0, epochs=spec.train.epochs, data=dataset.digest))
        self._curve = [row for row in read_curve(place) if row["epoch"] <= self.state.epoch]
        write_whole(place / "config.json", canonical(spec))
        write_state(place, self.state)

    def describe(self, code: str) -> None:
        """Write down what the run is made with."""
        write_whole(self.place / "environment.json", canonical({"code": code, **environment()}))
        patch = code_changes() if code.endswith("+") else b""
        if 0 < len(patch) <= MAX_PATCH:
            write_whole(self.place / "code.diff", patch)

    def epoch(self, number: int, figures: Mapping[str, float], net: Network | None) -> None:
        """Keep an epoch: the weights first, where no other process has kept them, then the state that says so."""
        if net is not None:
            keep_weights(self.place, net, self._spec, self._classes)
        self._curve.append({"epoch": number, **{name: figures[name] for name in FIGURES}})
        lines = [",".join(("epoch", *FIGURES)), *(",".join(map(repr, row.values())) for row in self._curve), ""]
        write_whole(self.place / "curve.csv", "\n".join(lines).encode())
        self.state = replace(self.state, epoch=number)
        write_state(self.place, self.state)
        if self._runs is not None:
            self._runs.log(self.run, figures, number)

    def close(self, phase: Phase) -> None:
        """Write down how the run ended, and hand its files to the tracker."""
        write_state(self.place, replace(self.state, phase=phase))
        if self._runs is None:
            return
        if self._curve:
            write_whole(self.place / "curve.png", curve_png(self._curve))
        for name in KEPT:
            if (self.place / name).exists():
                self._runs.keep(self.run, self.place / name)
        self._runs.finish(self.run, ok=phase is Phase.DONE)


@contextmanager
def recorded(
    spec: TrainSpec, dataset: DatasetVersion, runs: Runs | None, folder: Path, code: str, resume: str | None = None
) -> Iterator[Record]:
    """Open a run in the tracker, or under a name of its own, and in `folder/<run>/`; close it however the body ends.

    `resume` names a run that was cut off, which goes on: under its own id, in its own folder. Of several processes that
    train one run together only the first may record it. Raises NotWritable where the folder cannot be written,
    UnknownId where there is nothing to resume.
    """
    with ExitStack() as stack:
        try:
            run = resume or _started(spec, dataset, runs, code)
            place = _place(folder, run, resume)
            stack.enter_context(held(place))
            record = Record(run, place, spec, dataset, runs)
            if runs is not None and resume:
                runs.reopen(run)
            try:
                record.describe(code)
                with gauged(lambda now, at: runs.log(run, now, at), place) if runs is not None else nullcontext():
                    yield record
            except BaseException:
                record.close(Phase.FAILED)
                raise
            record.close(Phase.DONE)
        except OSError as error:
            fault = Fault(error.strerror or str(error), str(error.filename or folder), "a folder with room to write")
            raise NotWritable("the training run cannot be kept", [fault]) from error


def keep_weights(place: Path, net: Network, spec: TrainSpec, classes: int) -> None:
    """Write the weights of a run, whole, into its folder."""
    shape = {"channels": spec.imaging.channels, "classes": classes, "size": spec.imaging.size}
    save_weights(place / WEIGHTS, net, spec.model, **shape)


def read_curve(place: Path) -> list[dict[str, float]]:
    """The figures of each epoch so far, from a run's folder."""
    if not (place / "curve.csv").exists():
        return []
    with (place / "curve.csv").open(newline="") as file:
        return [
            {"epoch": int(row.pop("epoch")), **{k: float(v) for k, v in row.items()}} for row in csv.DictReader(file)
        ]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level of dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def _started(spec: TrainSpec, dataset: DatasetVersion, runs: Runs | None, code: str) -> str:
    tags = {"data": dataset.digest, "data_name": dataset.name, "config": digest(canonical(spec)), "code": code}
    return new_id("run-") if runs is None else runs.start(dataset.name, flat(plain(spec)), tags)


def _place(folder: Path, run: str, resume: str | None) -> Path:
    place = folder / run
    if resume and not (place / "state.json").exists():
        fault = Fault("no such run was begun here", str(place), "the folder of a run that was cut off", "none")
        raise UnknownId(f"no run {run!r}", [fault])
    place.mkdir(parents=True, exist_ok=bool(resume))
    return place


def _state(place: Path, fresh: State) -> State:
    """The state of a run that goes on, or that of a fresh one."""
    path = place / "state.json"
    found: State = restore(State, json.loads(path.read_bytes())) if path.exists() else fresh
    return replace(found, epochs=fresh.epochs, phase=Phase.TRAINING)
