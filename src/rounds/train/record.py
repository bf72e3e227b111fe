"""What a run leaves behind: its folder on disk, and its entry in the experiment tracker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rounds.core.errors import Fault, NotWritable
from rounds.core.ids import canonical, digest, new_id, plain, write_whole
from rounds.core.ports import Runs
from rounds.core.records import DatasetVersion
from rounds.core.specs import TrainSpec
from rounds.nets.network import Network
from rounds.nets.weights import save_weights
from rounds.train.resume import Phase, State, held, write_state

FIGURES = ("loss", "auc", "accuracy")


class Record:
    """One run while it trains. `recorded` opens and closes it."""

    def __init__(self, run: str, place: Path, spec: TrainSpec, classes: int, runs: Runs | None) -> None:
        self.run, self.checkpoint = run, place / "weights.pt"
        self._place, self._spec, self._classes, self._runs = place, spec, classes, runs
        self._state = State(run, epoch=0, epochs=spec.train.epochs)
        self._curve = [",".join(("epoch", *FIGURES))]
        write_whole(place / "config.json", canonical(spec))
        write_state(place, self._state)

    def epoch(self, number: int, figures: Mapping[str, float], net: Network) -> None:
        """Keep an epoch: the checkpoint first, then the state that says it is there."""
        shape = {"channels": self._spec.imaging.channels, "classes": self._classes, "size": self._spec.imaging.size}
        save_weights(self.checkpoint, net, self._spec.model, **shape)
        self._state = replace(self._state, epoch=number)
        write_state(self._place, self._state)
        self._curve.append(",".join([str(number), *(repr(figures[name]) for name in FIGURES)]))
        if self._runs is not None:
            self._runs.log(self.run, figures, number)

    def close(self, phase: Phase) -> None:
        """Write down how the run ended, and hand its files to the tracker."""
        write_whole(self._place / "curve.csv", "\n".join([*self._curve, ""]).encode())
        write_state(self._place, replace(self._state, phase=phase))
        if self._runs is not None:
            for file in (self._place / "config.json", self._place / "curve.csv", self.checkpoint):
                if file.exists():
                    self._runs.keep(self.run, file)
            self._runs.finish(self.run, ok=phase is Phase.DONE)


@contextmanager
def recorded(spec: TrainSpec, dataset: DatasetVersion, runs: Runs | None, folder: Path, code: str) -> Iterator[Record]:
    """Open a run in the tracker, or under a name of its own, and in `folder/<run>/`; close it however the body ends.

    Raises NotWritable where the folder cannot be written.
    """
    tags = {"data": dataset.digest, "data_name": dataset.name, "config": digest(canonical(spec)), "code": code}
    with ExitStack() as stack:
        try:
            run = new_id("run-") if runs is None else runs.start(dataset.name, flat(plain(spec)), tags)
            place = folder / run
            place.mkdir(parents=True)
            stack.enter_context(held(place))
            record = Record(run, place, spec, len(dataset.classes), runs)
            try:
                yield record
            except BaseException:
                record.close(Phase.FAILED)
                raise
            record.close(Phase.DONE)
        except OSError as error:
            fault = Fault(error.strerror or str(error), str(error.filename or folder), "a folder with room to write")
            raise NotWritable("the training run cannot be kept", [fault]) from error


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level of dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found
