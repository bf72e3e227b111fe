"""The same chunks on a Ray cluster: the one of RAY_ADDRESS, or one on this machine that ends with the run.

Rounds must be installed on every node, and the films lie on a disk that all of them see; the bundle travels.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2

from rounds.core.errors import Fault, RoundsError, WorldFault
from rounds.loop.clerk import Clerk, Job
from rounds.loop.crew import AHEAD, Answers, Order
from rounds.loop.outfile import Tell
from rounds.runtime.bundle import FILES, SUMS

KNOCK_S = 10.0


def on_ray(job: Job, orders: Iterator[Order], count: int, tell: Tell) -> Answers:
    """The packed chunk of each order, as they come, from as many processes as the cluster has CPUs.

    On this machine alone they are `count`. `tell` hears which nodes had a part in it.
    Raises: what a clerk raises; WorldFault without Ray, or where it fails.
    """
    with ExitStack() as stack:
        try:
            from rounds.train.cluster import ray_cluster

            if address := os.environ.get("RAY_ADDRESS"):
                _knock(address)
            else:
                scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="rounds-"))
                if os.environ.setdefault("RAY_TMPDIR", scratch) == scratch:
                    stack.callback(os.environ.pop, "RAY_TMPDIR", None)
            ray = stack.enter_context(ray_cluster(count))
        except ModuleNotFoundError as error:
            missing = Fault("not installed", str(error.name), next="pip install 'rounds[ray]'")
            raise WorldFault("this launcher needs Ray", [missing]) from error
        except OSError as error:
            there = Fault("no cluster answers", os.environ.get("RAY_ADDRESS", ""), got=str(error), next="is it up?")
            raise WorldFault("the Ray cluster cannot be joined", [there]) from error
        nodes = Counter[str]()
        yield from _answers(ray, job, orders, nodes)
        places = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
        parts = sorted(f"{places.get(node, node)} ({chunks} chunks)" for node, chunks in nodes.items())
        tell(f"answered by {', '.join(parts)}")


def _knock(address: str) -> None:
    """Ray itself knocks for minutes where nobody is. Raises OSError."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_S).close()


def _answers(ray: Any, job: Job, orders: Iterator[Order], nodes: Counter[str]) -> Answers:
    files = ray.put({name: (job.path / name).read_bytes() for name in (*FILES, SUMS)})
    # A node that dies gives its chunks to the others.
    task = ray.remote(num_cpus=1, max_retries=3, scheduling_strategy="SPREAD")(_chunk)
    room = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
    running: dict[Any, int] = {}
    more = True
    while more or running:
        while more and len(running) < room:
            order = next(orders, None)
            if order is None:
                more = False
                break
            number, paths = order
            running[task.remote(files, job, str(Path.cwd()), paths)] = number
        if running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            node, data = _got(ray, done)
            nodes[node] += 1
            yield running.pop(done), data


def _got(ray: Any, done: Any) -> tuple[str, bytes]:
    try:
        answered: tuple[str, bytes] = ray.get(done)
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, RoundsError) else error from None
    except ray.exceptions.RayError as error:
        fault = Fault("a chunk was not answered", "ray", "answers", f"{type(error).__name__}: {error}"[:500])
        raise WorldFault("the Ray cluster could not answer", [fault]) from error
    return answered


def _chunk(files: Mapping[str, bytes], job: Job, folder: str, paths: list[str]) -> tuple[str, bytes]:
    """One chunk, answered on a node, in the folder in which the paths were named; the node's id beside it."""
    import ray

    os.chdir(folder)
    return ray.get_runtime_context().get_node_id(), (_SEATED.get(job) or _seated(files, job)).answer(paths)


_SEATED: dict[Job, Clerk] = {}


def _seated(files: Mapping[str, bytes], job: Job) -> Clerk:
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(prefix="rounds-") as place:
        folder = Path(place) / job.digest
        folder.mkdir()
        for name, data in files.items():
            (folder / name).write_bytes(data)
        clerk = _SEATED[job] = Clerk(replace(job, path=folder))
    return clerk
