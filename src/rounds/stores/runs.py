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
from urllib.parse import urlsplit

from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError

from rounds.core.errors import Fault, StoreAway, UnknownId, WorldFault
from rounds.stores.runs_models import mirror

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

EXPERIMENT = "rounds"
# Who runs it, so that a run whose process is gone can be told from one that is under way.
HOST, PID, BORN = "rounds.host", "rounds.pid", "rounds.born"
# A run's own name: its id where MLflow was away when it began, and what keeps it from being entered twice.
RUN, OWN = "rounds.run", "run-"
# MLflow waits two minutes for each answer, asks eight times, and prints addresses on stdout, where our answers go; its
# variables say otherwise where they are set. Once is enough: whoever spools asks again, and looks first whether it was
# heard; asked again blindly, a server that is only slow would make a run twice.
MANNERS = {
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "8",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": "60",
}
# What MLflow answers to what it will not do, however often it is asked.
_REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "RESOURCE_ALREADY_EXISTS"}
_BATCH = {"params": 100, "metrics": 1000}
_STATES = {True: "FINISHED", False: "FAILED", None: "KILLED"}
Point = tuple[Mapping[str, float], int, int]


class MlflowRuns:
    """The port `Runs` on MLflow: a database (sqlite:///file, postgresql://...) with a place for artifacts, or a server
    (http://...), which keeps them itself.

    MLflow is imported and its database opened, and made where there is none, at the first use: 3 and 2 seconds.
    Times `at` are milliseconds since 1970, now where none is given; whatever is told twice with its time is kept once.
    Raises, from every method: StoreAway where MLflow does not answer, UnknownId for a run it does not know, WorldFault
    for what it refuses.
    """

    def __init__(self, tracking_uri: str, artifact_root: str | Path, project: str = EXPERIMENT) -> None:
        self.uri, self._project = tracking_uri, project
        # of SQLAlchemy's drivers for PostgreSQL we install this one
        self._store = tracking_uri.replace("postgresql://", "postgresql+psycopg://", 1)
        self._artifacts = artifact_root.resolve().as_uri() if isinstance(artifact_root, Path) else artifact_root
        self._ids: dict[str, str] = {}

    @property
    def remote(self) -> bool:
        """Whether another machine may have to answer."""
        return not self.uri.startswith("sqlite:")

    @property
    def address(self) -> str:
        """Where MLflow keeps runs, as it may be shown: without user and password."""
        parts = urlsplit(self.uri)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.netloc else self.uri

    def start(
        self, name: str, params: Mapping[str, Any], tags: Mapping[str, str], run: str = "", *, at: int | None = None
    ) -> str:
        """Open a run; its id, which MLflow chooses. One whose tags name it (RUN) is opened once."""
        with self._asked():
            from mlflow.entities import Param

            given = tags.get(RUN, run)
            made = self._found(given) if given else None
            if made is None:
                everything = {"mlflow.source.name": "rounds", **whose(), **tags}
                made = self._client.create_run(
                    self._experiment, start_time=at, run_name=name, tags=everything
                ).info.run_id
            self._ids[made] = made
            every = [Param(key, str(value)) for key, value in params.items()]
            for some in _batches(every, _BATCH["params"]):
                self._client.log_batch(made, params=some)
            return made

    def reopen(self, run: str) -> None:
        """Let a run that ended go on, as this process's."""
        with self._asked(run):
            from mlflow.entities import RunTag

            self._client.update_run(self._id(run), "RUNNING")
            self._client.log_batch(self._id(run), tags=[RunTag(key, value) for key, value in whose().items()])

    def log(self, run: str, metrics: Mapping[str, float], step: int) -> None:
        """Enter the figures of a step in one transaction."""
        self.enter(run, [(metrics, step, now())])

    def enter(self, run: str, points: Sequence[Point]) -> None:
        """Enter the figures of several steps: (figures, step, time) each, in as few transactions as MLflow takes."""
        with self._asked(run):
            from mlflow.entities import Metric

            every = [Metric(key, value, at, step) for metrics, step, at in points for key, value in metrics.items()]
            for some in _batches(every, _BATCH["metrics"]):
                self._client.log_batch(self._id(run), metrics=some)

    def keep(self, run: str, file: Path, folder: str = "") -> None:
        """Store a file, or a folder whole under its name, among the run's artifacts."""
        with self._asked(run):
            if file.is_dir():
                self._client.log_artifacts(self._id(run), str(file), "/".join(filter(None, [folder, file.name])))
            else:
                self._client.log_artifact(self._id(run), str(file), folder or None)

    def finish(self, run: str, *, ok: bool | None, at: int | None = None) -> None:
        """Close a run as finished or failed, or (None) as killed."""
        with self._asked(run):
            self._client.set_terminated(self._id(run), _STATES[ok], at)

    def mirror(self, model: str, versions: Sequence[Mapping[str, str]], champion: str | None) -> None:
        """Make MLflow's registry say the same: versions by their tags, and the alias `champion`."""
        with self._asked():
            mirror(self._client, model, [{**v, "run": self._found(v["run"]) or ""} for v in versions], champion)

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

    def _id(self, run: str) -> str:
        """MLflow's id of a run that may bear a name of its own; UnknownId."""
        found = self._found(run)
        if found is None:
            raise _unknown(run)
        return found

    def _found(self, run: str) -> str | None:
        """The same; None for a name that MLflow does not know, and for an id that it has no run of."""
        if run not in self._ids:
            from mlflow.exceptions import MlflowException

            try:
                if run.startswith(OWN):
                    for named in self._client.search_runs([self._experiment], f"tags.`{RUN}` = '{run}'"):
                        self._ids[run] = named.info.run_id
                elif run:
                    self._ids[run] = self._client.get_run(run).info.run_id
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
        return self._ids.get(run)

    @cached_property
    def _client(self) -> MlflowClient:
        if self.uri.startswith("sqlite:///"):
            Path(self.uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        if not self.uri.startswith(("http://", "https://")):
            # MLflow tries for two minutes to reach a database that is not there; one look of ours comes first.
            engine = create_engine(self._store)
            engine.connect().close()
            engine.dispose()
        # Read by MLflow when it is imported: no figures about us leave this machine unless somebody asked for it.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        for name, value in MANNERS.items():
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient

        for talker in ("mlflow", "alembic"):
            logging.getLogger(talker).setLevel(logging.ERROR)
        return MlflowClient(tracking_uri=self._store, registry_uri=self._store)

    @cached_property
    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        try:
            # a server says itself where it keeps them
            place = None if self.uri.startswith(("http://", "https://")) else self._artifacts
            made: str = self._client.create_experiment(self._project, artifact_location=place)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = self._client.get_experiment_by_name(self._project)
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
                raise _unknown(run) from error
            if error.error_code in _REFUSALS:
                fault = Fault("MLflow refuses this", run or self.address, got=_first_line(error))
                raise WorldFault("the experiment tracker refuses", [fault]) from error
            raise self._away(error) from error
        except (SQLAlchemyError, OSError) as error:
            raise self._away(error) from error

    def _away(self, error: Exception) -> StoreAway:
        then = "check that it can be written"
        fault = Fault("MLflow's store does not answer", self.address, got=_first_line(error), next=then)
        return StoreAway("the experiment tracker is away", [fault])


def now() -> int:
    """Milliseconds since 1970, as MLflow counts time."""
    return time.time_ns() // 1_000_000


def whose() -> dict[str, str]:
    """Tags that tell which process a run belongs to."""
    return {HOST: platform.node(), PID: str(os.getpid()), BORN: born(os.getpid()) or ""}


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


def _unknown(run: str) -> UnknownId:
    fault = Fault("no such run in MLflow", run, next="open MLflow on this store to see its runs")
    return UnknownId(f"no run {run!r}", [fault])


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _batches(every: list[Any], most: int) -> Iterator[list[Any]]:
    yield from (every[start : start + most] for start in range(0, len(every), most))
