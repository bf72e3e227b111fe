"""Training runs in Weights & Biases, online or offline: silent, with nothing sent that a run did not enter."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rounds.core.errors import Fault, WorldFault
from rounds.core.ids import new_id
from rounds.core.specs import TrackingSpec

if TYPE_CHECKING:
    from wandb import Run, Settings

INIT_S = 10.0
# Metrics of the machine have an axis of their own: seconds, where the others have epochs.
SYSTEM, SECONDS = "system/", "system/seconds"


class WandbRuns:
    """The port `Runs` on Weights & Biases; everything it writes lies in `folder/wandb`.

    Where its server is away a run goes offline, into a folder that `wandb sync` hands over; what else goes wrong is
    said once to `tell`, and the training goes on. It takes nothing after a run's end, so that is put off until the next
    run starts or the tracker is closed. Raises WorldFault where the package is not installed.
    """

    def __init__(self, spec: TrackingSpec, folder: Path, tell: Callable[[str], None]) -> None:
        if importlib.util.find_spec("wandb") is None:
            then = "install it: pip install 'rounds[wandb]', or train with tracking=mlflow"
            raise WorldFault("tracking by W&B needs its package", [Fault("not installed", "wandb", next=then)])
        self._spec, self._folder, self._tell = spec, folder, tell
        self._open: dict[str, Run] = {}
        self._axes: dict[str, set[str]] = {}
        self._ended: dict[str, int] = {}
        self._told = False

    def start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str], run: str = "") -> str:
        """Open a run under this id, or one made here; its id."""
        self._end()
        run = run or new_id("run-")
        with self._forgiven():
            self._open[run] = self._init(run, name, {**params, **tags})
        return run

    def reopen(self, run: str) -> None:
        """Let a run that ended go on; offline that is a folder beside the first, under the same id."""
        self._ended.pop(run, None)
        with self._forgiven():
            if run not in self._open:
                self._open[run] = self._init(run, None, {})

    def log(self, run: str, metrics: Mapping[str, float], step: int) -> None:
        """Enter the figures of a step, on the axis that they have."""
        axis = SECONDS if all(name.startswith(SYSTEM) for name in metrics) else "epoch"
        with self._forgiven():
            if (opened := self._open.get(run)) is not None:
                for name in metrics.keys() - self._axes[run]:
                    opened.define_metric(name, step_metric=axis)
                self._axes[run] |= metrics.keys()
                opened.log({**metrics, axis: step})

    def keep(self, run: str, file: Path, folder: str = "") -> None:
        """Store a file, or a folder whole under its name, among the run's files."""
        with self._forgiven():
            if run not in self._open:
                return
            place = Path(self._open[run].dir)
            target = place / folder / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            # copied: what W&B links to would have to stay where it is until it is synchronised
            if file.is_dir():
                shutil.copytree(file, target, dirs_exist_ok=True)
            else:
                shutil.copy2(file, target)
            for part in sorted(target.rglob("*")) if target.is_dir() else [target]:
                if part.is_file():
                    self._open[run].save(str(part), base_path=str(place), policy="end")

    def finish(self, run: str, *, ok: bool) -> None:
        """Close a run as finished or failed."""
        self._ended[run] = 0 if ok else 1

    def unfinished(self) -> Sequence[str]:
        """None: W&B itself marks a run as crashed when its process is gone."""
        return ()

    def mirror(self, model: str, versions: Sequence[Mapping[str, str]], champion: str | None) -> None:
        """Nothing: what serves is mirrored to MLflow's registry alone."""

    def close(self) -> None:
        """End every run, and W&B's own process."""
        self._ended |= {run: self._ended.get(run, 1) for run in self._open}
        started = bool(self._open)
        self._end()
        if started:
            with self._forgiven():
                import wandb

                wandb.teardown()

    def _end(self) -> None:
        for run, code in list(self._ended.items()):
            del self._ended[run]
            if (opened := self._open.pop(run, None)) is not None:
                with self._forgiven():
                    opened.finish(exit_code=code)

    def _init(self, run: str, name: str | None, config: Mapping[str, Any]) -> Run:
        # read when W&B is imported: its reports of errors go to a third party
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_SILENT", "true")
        os.environ.setdefault("WANDB_CACHE_DIR", str(self._folder / "wandb" / "cache"))
        import wandb

        self._folder.mkdir(parents=True, exist_ok=True)
        given: dict[str, Any] = {"project": self._spec.project, "entity": self._spec.entity or None, "id": run}
        given |= {"name": name, "config": dict(config), "dir": str(self._folder), "reinit": "create_new"}
        mode: Any = self._spec.mode or os.environ.get("WANDB_MODE", "online")
        try:
            made = wandb.init(
                **given, mode=mode, resume="allow" if mode == "online" else None, settings=self._settings()
            )
        except wandb.Error as error:
            if not self._open:
                # its process still holds the id for the attempt that failed
                wandb.teardown()
            made = wandb.init(**given, mode="offline", settings=self._settings())
            self._once(f"W&B is away: {error}\n  the run goes on offline; later: wandb sync {Path(made.dir).parent}")
        for axis in (SECONDS, "epoch"):
            made.define_metric(axis, hidden=True)
        self._axes[run] = {SECONDS, "epoch"}
        return made

    def _settings(self) -> Settings:
        import wandb

        quiet: dict[str, Any] = {"silent": True, "console": "off", "init_timeout": INIT_S}
        # no remote of the user's repository, no command line, no source: what a run keeps, Rounds hands over itself
        private: dict[str, Any] = {"disable_git": True, "disable_code": True, "save_code": False}
        return wandb.Settings(**quiet, **private, x_disable_meta=True, x_disable_stats=True)

    @contextmanager
    def _forgiven(self) -> Iterator[None]:
        """Say once what goes wrong in W&B, and let the training go on."""
        try:
            yield
        except Exception as error:  # a stranger's code, in the middle of a training that must not be lost to it
            self._once(f"W&B failed, and the training goes on without it: {type(error).__name__}: {error}")

    def _once(self, text: str) -> None:
        if not self._told:
            self._told = True
            self._tell(text)
