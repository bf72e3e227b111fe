"""A request from bytes to acknowledged answer: a worker decodes, computes, decides and keeps; only then it is
answered."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rounds.capture import journal
from rounds.capture.capture import Attached, attach, pseudonym
from rounds.core.errors import Fault, RoundsError, WorldFault
from rounds.core.ids import hash01, new_id, plain
from rounds.core.ports import Ports
from rounds.core.records import Bundle, Finding, Label, ModelVersion, Prediction, PredictRequest
from rounds.core.specs import MonitorSpec, ServeSpec
from rounds.loop import sightings
from rounds.loop.sightings import Sighting
from rounds.loop.workers import start
from rounds.registry.catalogue import CANARY, Catalogue, Staged
from rounds.runtime.bundle import read
from rounds.serve.batcher import Batcher
from rounds.serve.pool import Ask, Begin, Pool, Reply, Version

Tell = Callable[[str, Mapping[str, Any]], None]

RETRY_S = 2.0
DRAIN_S = 0.25
SIGHT_S = 5.0


@dataclass(frozen=True)
class InService:
    """A version that answers."""

    version: str
    bundle: Bundle


class Live:
    """Answers films with the champion of the event log, keeps every answer before it is given, and follows the log.

    Answers are kept in the journal of the worker that made them and handed to the stores from there: a store that is
    away costs no answer. `tell` hears what operators want to know: `seated`, `not_seated`, `store_away`,
    `worker_died`. `keep=False` keeps nothing, to measure what keeping costs; `begin` starts a
    worker process.
    """

    def __init__(
        self,
        ports: Ports,
        serve: ServeSpec,
        monitor: MonitorSpec,
        *,
        tell: Tell = lambda _what, _facts: None,
        took: Callable[[int, Mapping[str, float]], None] = lambda _films, _seconds: None,
        keep: bool = True,
        begin: Begin = start,
    ) -> None:
        self.ports = ports
        self.swaps = self.deaths = 0
        self.sighting: Sighting | None = None
        self._spec = serve
        self._tell, self._took, self._begin = tell, took, begin
        self._journal = ports.home / journal.FOLDER
        self._setup = {
            "serve": plain(serve),
            "secret": ports.secret,
            "audit_share": monitor.audit_share,
            "journal": str(self._journal) if keep else None,
            "journal_bytes": serve.journal_bytes,
        }
        self._current: InService | None = None
        self._staged: Staged | None = None
        self._exposed = 0
        self._fault: RoundsError | None = None
        self._read_to = -1
        self._failed_at = 0.0
        self._answered = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._batcher: Batcher[Ask, Reply] | None = None
        self._pool: Pool | None = None

    async def start(self) -> None:
        """Put the champion in service, if there is one that can be loaded, and begin to follow the log."""
        self._batcher = Batcher(self._spec)
        begin: Begin = self._begin if self._spec.workers else thread
        count = max(1, self._spec.workers)
        self._pool = Pool(begin, self._setup, self._batcher, count, told=self._told, died=self._died)
        await self._pool.start()
        await self.follow()
        self._tasks = [
            asyncio.create_task(self._poll()),
            asyncio.create_task(self._drain()),
            asyncio.create_task(self._sight()),
        ]

    async def stop(self) -> None:
        """Take no more, answer what is waiting, end every worker, and hand over what was kept."""
        if self._batcher is None or self._pool is None:
            return
        await self._batcher.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._pool.stop()
        await self._hand_over()

    @property
    def seated(self) -> InService | None:
        """The version in service."""
        return self._current

    @property
    def ready(self) -> bool:
        """Whether films are answered now."""
        return self._current is not None and self._pool is not None and self._pool.alive > 0

    @property
    def following(self) -> bool:
        """Whether the log is being followed: a server that is not would answer with an old version for ever."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    @property
    def depth(self) -> int:
        """Requests that wait for a worker."""
        return self._batcher.depth if self._batcher is not None else 0

    @property
    def workers(self) -> int:
        """Workers that answer."""
        return self._pool.alive if self._pool is not None else 0

    @property
    def processes(self) -> Sequence[int]:
        """The workers' process ids."""
        return self._pool.processes if self._pool is not None else ()

    @property
    def backlog(self) -> int:
        """Bytes of answers that wait for the stores."""
        return journal.backlog(self._journal)

    def pseudonym(self, subject: str | None) -> str | None:
        """The keyed pseudonym under which a subject is stored."""
        return None if subject is None else pseudonym(self.ports.secret, subject)

    def vacancy(self) -> WorldFault:
        """Why no version is in service, as an error to answer with."""
        if self._current is not None:
            return WorldFault("no worker is ready", [Fault("they are being started", next="send the request again")])
        if self._fault is not None:
            return WorldFault(f"no champion in service: {self._fault.message}", self._fault.faults)
        nobody = Fault("no version has been promoted", next="register a bundle and promote it: rounds promote BUNDLE")
        return WorldFault("no champion", [nobody])

    def attach(self, labels: Sequence[Label | str]) -> Attached:
        """Keep true labels for answered films; text in place of a label is why it is none.

        Raises WorldFault where there is no champion to say what classes there are.
        """
        seated = self._current
        if seated is None:
            raise self.vacancy()
        self.settle()
        return attach(self.ports, labels, seated.bundle.classes, self.ports.clock())

    def settle(self) -> None:
        """Hand everything that was answered so far to the stores. Raises WorldFault where they are away."""
        journal.settle(self.ports)

    async def predict(self, request: PredictRequest) -> Prediction:
        """Answer one film; when this returns, the answer is kept.

        Raises:
            BadImage: the bytes are not an image that is taken.
            WorldFault: no champion, too many requests, the deadline has passed, or (StoreAway) the answer could not be
                kept and is therefore not given.
        """
        found = json.loads((await self.answer(request)).text)
        return Prediction(label=found.pop("class"), **{**found, "set": tuple(found["set"])})

    def answer(self, request: PredictRequest) -> asyncio.Future[Reply]:
        """The same, with the answer as the JSON text that leaves the house."""
        if self._current is None or self._batcher is None:
            raise self.vacancy()
        ask = Ask(
            request.data,
            time.perf_counter(),
            self._arm,
            request.request,
            request.id,
            request.reference,
            request.subject,
        )
        return self._batcher.submit(ask, len(request.data))

    def _arm(self, ask: Ask) -> tuple[str, str | None]:
        """Asked when a film leaves: who answers it, and who looks on.

        The same reference always meets the same version, for as long as one is staged.
        """
        assert self._current is not None, "a seat once taken is never empty"
        champion, staged = self._current.version, self._staged
        if staged is None:
            return champion, None
        other = staged.version.version
        drawn = hash01(self.ports.secret, staged.id, ask.reference or ask.request) < staged.share
        if drawn and staged.stage == CANARY and self._exposed < staged.cap:
            self._exposed += 1
            return other, champion
        return champion, other

    def _told(self, films: int, seconds: Mapping[str, float]) -> None:
        self._answered.set()
        self._took(films, seconds)

    def _died(self, held: int, why: str) -> None:
        self.deaths += 1
        self._tell("worker_died", {"films": held, "why": why})
        text = f"a worker died ({why}); {held} films it held were refused, it is started again"
        task = asyncio.ensure_future(asyncio.to_thread(self._alarm, text, {"films": held}))
        task.add_done_callback(lambda done: done.exception())

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._spec.poll_s)
            try:
                await self.follow()
            except RoundsError as error:
                self._tell("store_away", {"error": str(error), "films": 0})

    async def _drain(self) -> None:
        """Hand answers over as they come, a moment later, many in one transaction; what an earlier life left, first."""
        while True:
            if not await self._hand_over():
                await asyncio.sleep(RETRY_S)
                continue
            await self._answered.wait()
            self._answered.clear()
            await asyncio.sleep(DRAIN_S)

    async def _sight(self) -> None:
        """Know what the watch found about the champion."""
        while True:
            if self._current is not None:
                with suppress(RoundsError):
                    self.sighting = await asyncio.to_thread(sightings.last, self.ports, self._current.bundle.digest)
            await asyncio.sleep(SIGHT_S)

    async def _hand_over(self) -> bool:
        try:
            await asyncio.to_thread(self.settle)
        except RoundsError as error:
            self._tell("store_away", {"error": str(error), "films": 0, "bytes": self.backlog})
            return False
        return True

    async def follow(self) -> None:
        """Look at the head of the log, and seat the champion where it is another one than before.

        A champion that cannot be loaded is reported to the log once and tried again every RETRY_S seconds: a file
        that is copied back heals the server without a restart. Raises WorldFault where the log cannot be read.
        """
        head = await asyncio.to_thread(self.ports.events.head)
        again = self._fault is not None and time.monotonic() - self._failed_at > RETRY_S
        if head == self._read_to and not again:
            return
        catalogue = Catalogue.of(await asyncio.to_thread(self.ports.events.read))
        champion = catalogue.champion
        seated = self._current
        if champion is not None and (seated is None or seated.version != champion.version):
            await self._seat_champion(champion, catalogue)
        else:
            self._fault = None
        if catalogue.staged != self._staged:
            await self._stage(catalogue)
        self._read_to = head

    async def _stage(self, catalogue: Catalogue) -> None:
        """Let another version look on, or answer its share, or none; one that cannot be loaded is reported once."""
        assert self._pool is not None
        before, staged, self._staged = self._staged, catalogue.staged, None
        if staged is not None:
            version = staged.version
            try:
                path = self.ports.home / catalogue.bundle(version.bundle).path
                await self._pool.take(Version(version.version, path, version.bundle))
                self._exposed = await asyncio.to_thread(self._answered_by, staged)
                self._staged = staged
            except RoundsError as error:
                about = {"version": version.version, "bundle": version.bundle}
                self._tell("not_seated", {**about, "error": str(error)})
                await asyncio.to_thread(self._alarm, str(error), about, once=True)
        if before is not None:
            self._leave(before.version.version)

    def _answered_by(self, staged: Staged) -> int:
        """How many films a version has answered since it was staged, as far as the store knows."""
        rows = self.ports.captures.since(0, limit=max(1, staged.cap), bundle=staged.version.bundle)
        return sum(row.at >= staged.version.at for row in rows)

    def _leave(self, version: str) -> None:
        """Forget a version, unless it is in use still."""
        assert self._pool is not None
        used = {self._current.version if self._current else "", self._staged.version.version if self._staged else ""}
        if version not in used:
            self._pool.leave(version)

    async def _seat_champion(self, champion: ModelVersion, catalogue: Catalogue) -> None:
        assert self._pool is not None
        began, before = time.perf_counter(), self._current
        try:
            path = self.ports.home / catalogue.bundle(champion.bundle).path
            await self._pool.take(Version(champion.version, path, champion.bundle))
            bundle = await asyncio.to_thread(read, path)
        except RoundsError as error:
            if self._fault is None or str(self._fault) != str(error):
                facts = {"version": champion.version, "bundle": champion.bundle, "error": str(error)}
                self._tell("not_seated", facts)
            self._fault, self._failed_at = error, time.monotonic()
            about = {"version": champion.version, "bundle": champion.bundle}
            await asyncio.to_thread(self._alarm, str(error), about, once=True)
            return
        self._fault = None
        # From here on every batch that leaves names the new version; what has left is answered by the old one.
        self._current = InService(champion.version, bundle)
        self.swaps += 1
        if before is not None:
            self._leave(before.version)
        seconds = time.perf_counter() - began
        self._tell("seated", {"version": champion.version, "bundle": bundle.digest, "seconds": seconds})

    def _alarm(self, why: str, about: Mapping[str, Any], *, once: bool = False) -> None:
        """Append an integrity finding; with `once` one a bundle, whoever else serves and however often it is tried."""
        if once:
            told = self.ports.events.read(kinds=("alarm",))
            known = {event.evidence.get("bundle") for event in told if event.evidence.get("kind") == "integrity"}
            if about.get("bundle") in known:
                return
        finding = Finding(
            id=new_id("f_"),
            kind="integrity",
            alarm=True,
            n=self.ports.captures.count(),
            at=self.ports.clock(),
            alpha=0.0,
            log_e=0.0,
            limit=0.0,
            why=why,
        )
        evidence = {"finding": finding.id, **about, **finding.public()}
        self.ports.events.append("alarm", who="serve: integrity", why=finding.why, evidence=evidence)


def thread() -> tuple[socket.socket, threading.Thread]:
    """Start a worker in a thread, and give our end of the line to it: for tests, and where memory is scarce."""
    from rounds.loop.answering import Worker

    ours, theirs = socket.socketpair()

    def work() -> None:
        with theirs:
            Worker(theirs).run()

    started = threading.Thread(target=work, name="worker", daemon=True)
    started.start()
    return ours, started
