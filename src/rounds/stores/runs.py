"""Training runs in MLflow, through its client alone: no global state, no telemetry, nothing on the console."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError

from rounds.core.errors import Fault, StoreAway, UnknownId

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

EXPERIMENT = "rounds"
# Who runs it, so that a run whose process is gone can be told from one that is under way.
HOST, PID, BORN = "rounds.host", "rounds.pid", "rounds.born"
_STATES = {True: "FINISHED", False: "FAILED"}


class MlflowRuns:
    """The port `Runs` on MLflow: a database (sqlite:///file, postgresql://...) and a place for artifacts.

    MLflow is imported and its database opened, and made where there is none, at the first use: 3 and 2 seconds.
    Raises, from every method: StoreAway where the database does not answer, UnknownId for a run it does not know.
    """

    def __init__(self, tracking_uri: str, artifact_root: str | Path) -> None:
        self._uri = tracking_uri
        self._artifacts = artifact_root.resolve().as_uri() if isinstance(artifact_root, Path) else artifact_root

    def start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """Open a run; its id."""
        with self._asked():
            from mlflow.entities import Param

            whose = {HOST: platform.node(), PID: str(os.getpid()), BORN: born(os.getpid()) or ""}
            run: str = self._client.create_run(
                self._experiment, run_name=name, tags={"mlflow.source.name": "rounds", **whose, **tags}
            ).info.run_id
            self._client.log_batch(run, params=[Param(key, str(value)) for key, value in params.items()])
            return run

    def log(self, run: str, metrics: Mapping[str, float], step: int) -> None:
        """Enter the figures of a step in one transaction."""
        with self._asked(run):
            from mlflow.entities import Metric

            now = time.time_ns() // 1_000_000
            self._client.log_batch(run, metrics=[Metric(key, value, now, step) for key, value in metrics.items()])

    def keep(self, run: str, file: Path, folder: str = "") -> None:
        """Store a file, or a folder whole under its name, among the run's artifacts."""
        with self._asked(run):
            if file.is_dir():
                self._client.log_artifacts(run, str(file), "/".join(filter(None, [folder, file.name])))
            else:
                self._client.log_artifact(run, str(file), folder or None)

    def finish(self, run: str, *, ok: bool) -> None:
        """Close a run as finished or failed."""
        with self._asked(run):
            self._client.set_terminated(run, _STATES[ok])

    def unfinished(self) -> Sequence[str]:
        """Runs of this host that are open while their process is gone; each is closed as killed by this call."""
        with self._asked():
            gone = [run for run, tags in self._open_here() if born(int(tags[PID])) != tags[BORN]]
            for run in gone:
                self._client.set_terminated(run, "KILLED")
            return gone

    def _open_here(self) -> Iterator[tuple[str, Mapping[str, str]]]:
        wanted = f"attributes.status = 'RUNNING' and tags.`{HOST}` = '{platform.node()}'"
        token: str | None = None
        while token != "":
            page = self._client.search_runs([self._experiment], wanted, max_results=1000, page_token=token)
            yield from ((run.info.run_id, run.data.tags) for run in page)
            token = page.token or ""

    @cached_property
    def _client(self) -> MlflowClient:
        if self._uri.startswith("sqlite:///"):
            Path(self._uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        if not self._uri.startswith(("http://", "https://")):
            # MLflow tries for two minutes to reach a database that is not there; one look of ours comes first.
            engine = create_engine(self._uri)
            engine.connect().close()
            engine.dispose()
        # Read by MLflow when it is imported: no figures about us leave this machine unless somebody asked for it.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.tracking import MlflowClient

        for talker in ("mlflow", "alembic"):
            logging.getLogger(talker).setLevel(logging.ERROR)
        return MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)

    @cached_property
    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        try:
            made: str = self._client.create_experiment(EXPERIMENT, artifact_location=self._artifacts)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = self._client.get_experiment_by_name(EXPERIMENT)
            assert found is not None, "it exists already, says MLflow"
            made = found.experiment_id
        return made

    @contextmanager
    def _asked(self, run: str = "") -> Iterator[None]:
        """Say what MLflow and its database say in the house's own errors."""
        try:
            self._client  # noqa: B018  # imports MLflow, whose exceptions the next lines name
            from mlflow.exceptions import MlflowException
        except (SQLAlchemyError, OSError, ImportError) as error:
            raise self._away(error) from error
        try:
            yield
        except MlflowException as error:
            if run and error.error_code == "RESOURCE_DOES_NOT_EXIST":
                fault = Fault("no such run in MLflow", run, next="open MLflow on this store to see its runs")
                raise UnknownId(f"no run {run!r}", [fault]) from error
            raise self._away(error) from error
        except (SQLAlchemyError, OSError) as error:
            raise self._away(error) from error

    def _away(self, error: Exception) -> StoreAway:
        said = str(error).strip().splitlines() or [type(error).__name__]
        fault = Fault("MLflow's store does not answer", self._uri, got=said[0], next="check that it can be written")
        return StoreAway("the experiment tracker is away", [fault])


def born(pid: int) -> str | None:
    """When a process of this host started, as a text that no later process under its number shares; None when it is
    gone."""
    try:
        # The 22nd field, counted behind the command, which may hold spaces and parentheses: proc(5).
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}/{ticks}"
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    told = subprocess.run(["/bin/ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return told.stdout.strip() or None
