"""The servers that are measured side by side: ours, the tutorial's, LitServe and BentoML, on the same network.

The peers live in an environment of their own (build/peers), which is made once from bench/peers/requirements.txt.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.serving_films import BOUNDARY, Kind, form
from bench.serving_load import tree
from rounds.capture.journal import FOLDER as JOURNAL
from rounds.capture.journal import backlog

PEERS = Path(__file__).with_name("peers")
READY_S, SETTLE_S = 60.0, 60.0
# One thread a session and process for all: two on two cores, beside wrk, cost every side more than they give.
QUIET = {"OMP_NUM_THREADS": "1", "BENTOML_DO_NOT_TRACK": "true", "DO_NOT_TRACK": "1"}


@dataclass(frozen=True)
class Side:
    """A server that runs: `field` names the upload's field, None takes the film as the body; `home` is ours."""

    name: str
    pid: int
    url: str
    field: str | None = None
    home: Path | None = None

    def body(self, film: bytes, mime: str) -> bytes:
        """The film as this server takes it."""
        return film if self.field is None else form(self.field, film, mime)

    def content_type(self, kind: Kind) -> str:
        return kind.mime if self.field is None else f"multipart/form-data; boundary={BOUNDARY}"

    def ask(self, film: bytes, kind: Kind) -> str:
        """The class of one film."""
        headers = {"content-type": self.content_type(kind)}
        with urllib.request.urlopen(urllib.request.Request(self.url, self.body(film, kind.mime), headers)) as answer:
            found = json.load(answer)
        return (found[0] if isinstance(found, list) else found)["class"]

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Let a peer run for the length of the block: LitServe's else take a fifth of a core from all."""
        self._tell(signal.SIGCONT)
        yield
        self._tell(signal.SIGSTOP)

    def _tell(self, number: signal.Signals) -> None:
        for pid in tree(self.pid) if self.home is None else ():
            os.kill(pid, number)

    def settle(self) -> float:
        """Wait until nothing is left to do for what was answered; how many bytes are, where that takes a minute."""
        end = time.monotonic() + SETTLE_S
        while self.home is not None and backlog(self.home / JOURNAL) and time.monotonic() < end:
            time.sleep(0.1)
        return backlog(self.home / JOURNAL) if self.home is not None else 0


def environment() -> Path:
    """The peers' own environment, made where it is absent or of other packages."""
    place, wanted = Path("build/peers").absolute(), (PEERS / "requirements.txt").read_bytes()
    made = place / "requirements.txt"
    if not made.is_file() or made.read_bytes() != wanted:
        uv = str(Path(sys.executable).with_name("uv"))
        settings = {**os.environ, **({"SSL_CERT_FILE": os.environ["PIP_CERT"]} if "PIP_CERT" in os.environ else {})}
        subprocess.run([uv, "venv", "-q", "--clear", "-p", sys.executable, str(place)], check=True, env=settings)
        pip = [uv, "pip", "install", "-q", "--python", str(place / "bin/python"), "-r", str(PEERS / "requirements.txt")]
        subprocess.run(pip, check=True, env=settings)
        made.write_bytes(wanted)
    return place / "bin"


def serving(home: Path, port: int, *, without: Sequence[str] = ()) -> tuple[list[str], dict[str, str]]:
    """Command and environment of our server; `without` leaves something out of it, see bench/serving_plain."""
    if without:
        return [sys.executable, "-m", "bench.serving_plain", str(port), *without], {"ROUNDS_HOME": str(home)}
    return [sys.executable, "-m", "rounds", "--home", str(home), "serve", "--port", str(port)], {}


@contextmanager
def ours(
    home: Path, place: Path, *, name: str = "ours", without: Sequence[str] = (), champion: str | None = None
) -> Iterator[Side]:
    """Our server, on a copy of the workspace; `champion` is promoted there before, if another bundle is to serve."""
    own = copied(home, place / name)
    if champion is not None:
        rounds(own, "promote", champion, "--overrule=to be measured")
    port = free_port()
    command, settings = serving(own, port, without=without)
    with running(command, settings, place / f"{name}.log", f"http://127.0.0.1:{port}/health/ready") as pid:
        yield Side(name, pid, f"http://127.0.0.1:{port}/v1/predict", home=own)


@contextmanager
def peer(name: str, bundle: Path, place: Path, *, label: str | None = None) -> Iterator[Side]:
    """One of PEER_COMMANDS, on the network of the bundle; `label` is what it is called in the rows."""
    port, programs = free_port(), environment()
    make, path, field = PEER_COMMANDS[name]
    settings = {"PEER_BUNDLE": str(bundle.absolute()), "PATH": f"{programs}:{os.environ['PATH']}"}
    url = f"http://127.0.0.1:{port}"
    with running(make(programs, port), settings, place / f"{name}.log", url + path, PEERS) as pid:
        yield Side(label or name, pid, f"{url}/predict", field)


PEER_COMMANDS: dict[str, tuple[Callable[[Path, int], list[str]], str, str]] = {
    "tutorial": (
        lambda at, p: [f"{at}/uvicorn", "tutorial:app", f"--port={p}", "--log-level=warning"],
        "/docs",
        "file",
    ),
    "LitServe": (lambda at, p: [f"{at}/python", "litserve_app.py", str(p)], "/health", "file"),
    "BentoML": (
        lambda at, p: [f"{at}/bentoml", "serve", "bento_app:Classifier", "--host=127.0.0.1", f"--port={p}"],
        "/readyz",
        "images",
    ),
}


@contextmanager
def running(
    command: list[str], settings: dict[str, str], log: Path, ready: str, cwd: Path | None = None
) -> Iterator[int]:
    """The process of a server from when it is ready until the block ends; RuntimeError with the end of its log."""
    with log.open("wb") as sink:
        env = {**os.environ, **QUIET, **settings}
        process = subprocess.Popen(command, stdout=sink, stderr=sink, env=env, cwd=cwd)
        try:
            await_ready(process, ready, log)
            yield process.pid
        finally:
            stop(process)


def await_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Wait for 200."""
    end = time.monotonic() + READY_S
    while process.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"no server at {url}; {log} ends with: {log.read_text(errors='replace')[-800:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End it, and whatever it started and left behind."""
    started = tree(process.pid)[1:]
    for pid in (*started, process.pid):
        os.kill(pid, signal.SIGCONT)
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in started:
        if Path(f"/proc/{pid}").exists():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def rounds(home: Path, *words: str) -> dict[str, Any]:
    """What a command says as JSON; RuntimeError with its last words where it fails."""
    command = [sys.executable, "-m", "rounds", "--home", str(home), *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise RuntimeError(f"rounds {' '.join(words)} ended with {done.returncode}: {done.stderr[-800:]}")
    return dict(json.loads(done.stdout))


def copied(home: Path, to: Path) -> Path:
    """A copy of what a server needs of a workspace, so that no answer of another run lies in it."""
    shutil.copytree(home, to, ignore=shutil.ignore_patterns("data", "runs", "artifacts", "mlflow.db*", JOURNAL))
    # Read alone, by the gate.
    (to / "data").symlink_to((home / "data").absolute())
    return to


def free_port() -> int:
    """A port of loopback where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port
