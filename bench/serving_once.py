"""What is measured beside the load: the ceiling without HTTP, the start, a swap, and the workspace that is served."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from bench.serving_films import SMALL, Kind
from bench.serving_sides import Side, copied, free_port, rounds, serving, stop
from rounds.imaging.fit import to_pixels
from rounds.runtime.bundle import read
from rounds.runtime.predictor import Predictor
from rounds.runtime.scores import Scorer
from rounds.wiring.serving import open_ports
from rounds.wiring.settings import Settings

BATCH = 32
REAL = "pneumoniamnist_trainval.npz"
LIBRARIES = "sqlalchemy, fastapi, uvicorn, uvloop, httptools, numpy, structlog, pydantic_settings, prometheus_client"


@dataclass(frozen=True)
class Workspace:
    """The workspace that is served: `bundle` is champion, `int8` its variant where `rounds optimize` kept one, `other`
    a lesser network to swap with; all of them digests. `why` says what `optimize` said of int8."""

    home: Path
    bundle: str
    int8: str | None
    other: str
    films: str
    why: str

    def path(self, digest: str) -> Path:
        return self.home / "bundles" / digest


def workspace(home: Path) -> Workspace:
    """The recipe pneumonia28, trained, optimised and promoted; what an earlier run left is taken as it is."""
    made = home / "bench.json"
    if not made.is_file():
        place = Path(os.environ.get("ROUNDS_DATASETS", "../shared/datasets")) / REAL
        real = place.is_file()
        rounds(home, "data", "prepare", str(place.resolve()) if real else "phantom:n=5200,seed=0", "--name=films")
        recipe = ("experiment=pneumonia28", "train.progress=false")
        bundle = rounds(home, "train", *recipe)["bundle"]
        variants = rounds(home, "optimize", bundle)["variants"]
        other = rounds(home, "train", *recipe, "seed=1", "train.epochs=2")["bundle"]
        for one in (bundle, other):
            rounds(home, "register", one)
        rounds(home, "promote", bundle, "--overrule=to be measured")
        int8, why = next((one["bundle"], one["why"]) for one in variants if one["name"] == "int8")
        if int8 is not None:
            rounds(home, "register", int8)
        films = REAL if real else f"phantoms, for want of {REAL}"
        made.write_text(json.dumps({"bundle": bundle, "int8": int8, "other": other, "films": films, "why": why}))
    return Workspace(home, **json.loads(made.read_text()))


class Ceiling:
    """Decode and network in this process, in batches: what no server can be faster than."""

    def __init__(self, bundle: Path) -> None:
        cv2.setNumThreads(1)
        self.bundle = read(bundle)
        self._predictor, self._scorer = Predictor(self.bundle), Scorer(self.bundle.scoring)
        self.spent: dict[str, list[float]] = {"decode": [], "network": [], "scores": []}

    def films_per_cpu_second(self, kind: Kind, seconds: float, salt: int) -> float:
        """For about so many CPU seconds, over films that are not the same."""
        films = kind.bodies(salt)
        spent, done = dict.fromkeys(self.spent, 0.0), 0
        while spent["decode"] + spent["network"] < seconds and (batch := list(islice(films, BATCH))):
            at = [time.process_time()]
            pixels = np.stack([to_pixels(film, self.bundle.imaging) for film in batch])
            at.append(time.process_time())
            outputs = self._predictor.answer(pixels)
            at.append(time.process_time())
            self._scorer.scores(pixels, outputs)
            at.append(time.process_time())
            done += len(batch)
            for name, begun, ended in zip(spent, at, at[1:], strict=False):
                spent[name] += ended - begun
        if kind.name == SMALL:
            for name, total in spent.items():
                self.spent[name].append(1e6 * total / done)
        return done / (spent["decode"] + spent["network"])

    def label(self, film: bytes) -> str:
        """The class of one film."""
        from rounds.runtime.verdict import decide

        outputs = self._predictor.answer(to_pixels(film, self.bundle.imaging)[None])
        return self.bundle.classes[int(decide(self.bundle.calibration, outputs.logits)[0][0])]


def start_seconds(home: Path, place: Path, film: bytes, mime: str) -> float:
    """From exec to the first 200 of /v1/predict, on a workspace that was served by nobody before."""
    port, own = free_port(), copied(home, place)
    command, settings = serving(own, port)
    begun = time.perf_counter()
    with (place / "log").open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, env={**os.environ, **settings})
        try:
            while process.poll() is None and time.perf_counter() - begun < 60:
                if _answered(port, film, mime):
                    return time.perf_counter() - begun
                time.sleep(0.005)
            raise RuntimeError((place / "log").read_text(errors="replace")[-800:])
        finally:
            stop(process)


def loading_seconds() -> float:
    """What Python takes to load the libraries that a server stands on, none of it ours."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {LIBRARIES}"], check=True)
    return time.perf_counter() - begun


def _answered(port: int, film: bytes, mime: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", "/v1/predict", film, {"content-type": mime})
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def swap(side: Side, to: str, film: bytes, mime: str) -> list[float]:
    """Promote a bundle, and roll back: for both, seconds from the event to the last answer of the version before."""
    assert side.home is not None
    with _watching(side.url, film, mime) as seen:
        time.sleep(0.5)
        rounds(side.home, "promote", to, "--overrule=to be measured")
        time.sleep(1.5)
        rounds(side.home, "rollback")
        time.sleep(1.5)
    with open_ports(Settings(home=side.home)) as ports:
        events = ports.events.read(kinds=("promoted", "rolled_back"))[-2:]
    at = [event.at.timestamp() for event in events]
    return [last_before(seen, begun, ended) for begun, ended in zip(at, [*at[1:], float("inf")], strict=True)]


def last_before(seen: Sequence[tuple[float, str]], begun: float, ended: float) -> float:
    """Seconds from `begun` to the last answer, until `ended`, of the version that answered before; (when, version)."""
    before = [version for at, version in seen if at < begun][-1]
    return max((at - begun for at, version in seen if begun <= at < ended and version == before), default=0.0)


@contextmanager
def _watching(url: str, film: bytes, mime: str) -> Iterator[list[tuple[float, str]]]:
    """Ask again and again from a thread: when each answer came, and of which version it was."""
    seen, stopped = list[tuple[float, str]](), threading.Event()
    host, path = url.removeprefix("http://").split("/", 1)

    def ask() -> None:
        connection = http.client.HTTPConnection(host, timeout=30)
        while not stopped.is_set():
            connection.request("POST", f"/{path}", film, {"content-type": mime})
            version = json.load(connection.getresponse())["version"]
            seen.append((time.time(), version))
            time.sleep(0.01)
        connection.close()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield seen
    finally:
        stopped.set()
        thread.join(30)
