"""A tracker that may be away, hang or die: what it is to be told waits on disk, and nobody waits for it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from rounds.core.errors import Fault, RoundsError, StoreAway
from rounds.core.ids import digest, new_id
from rounds.stores.journal import BESIDE, Entry, Journal
from rounds.stores.runs import OWN, RUN, MlflowRuns, now, whose

T = TypeVar("T")
# Seconds: for an answer that the caller needs; without any progress; until a tracker that is away is asked again; and
# in which entries gather, so that short epochs are told together.
ANSWER_S, PROGRESS_S, RETRY_S, GATHER_S = 20.0, 90.0, 30.0, 2.0
# At the end it is asked once more, unless it was just now.
LAST_S = 5.0


class Spooled:
    """The port `Runs` in front of MLflow. Every call is first an entry in a journal below `folder`; one thread hands
    the entries over, in order, each once.

    A tracker that does not answer is said once to `tell`; the journal stays, and whoever opens it next hands it over.
    Where it is away when a run starts, the run bears a name of its own ("run-..."), by which MLflow finds it later.
    """

    def __init__(
        self, tracker: MlflowRuns, folder: Path, tell: Callable[[str], None], *, retry_s: float = RETRY_S
    ) -> None:
        self._tracker, self._tell, self._retry_s = tracker, tell, retry_s
        # what waits for one tracker is never told to another
        self._folder = folder / digest(tracker.uri.encode())[:12]
        self._journals: dict[str, Journal] = {}
        self._inherited: set[str] = set()
        self._guard = threading.RLock()
        self._worker = _Worker()
        self._hurry = threading.Event()
        self._asked_for = False
        self._away_since: float | None = None
        self._told: set[str] = set()
        self._steps = 0

    def start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str], run: str = "") -> str:
        """Open a run; its id, which is MLflow's where that answers."""
        own, at = new_id(OWN), now()
        tags = {**whose(), **tags, RUN: own}
        try:
            run = self._answer(lambda: self._tracker.start(name, params, tags, at=at))
        except StoreAway:
            run = own
        with self._guard:
            journal = self._journal(run)
            journal.add("start", name=name, params=dict(params), tags=tags, at=at)
            if run != own:
                journal.mark(1)
        return run

    def reopen(self, run: str) -> None:
        """Let a run that ended go on."""
        self._enter(run, "reopen", tags=whose())

    def log(self, run: str, metrics: Mapping[str, float], step: int) -> None:
        """Enter the figures of a step."""
        self._enter(run, "log", metrics=dict(metrics), step=step, at=now())

    def keep(self, run: str, file: Path, folder: str = "") -> None:
        """Store a file, or a folder whole, as it is now."""
        with self._guard:
            self._journal(run).add_file(file, folder=folder)
        self._soon()

    def finish(self, run: str, *, ok: bool) -> None:
        """Close a run as finished or failed."""
        self._enter(run, "finish", ok=ok, at=now())

    def unfinished(self) -> Sequence[str]:
        """Runs whose process is gone: their journals are taken over and ended, and MLflow closes its own."""
        killed = self._inherit()
        try:
            killed += self._answer(self._tracker.unfinished)
        except StoreAway:
            return killed
        self._soon()
        return list(dict.fromkeys(killed))

    def mirror(self, model: str, versions: Sequence[Mapping[str, str]], champion: str | None) -> None:
        """Make MLflow's registry say the same, after everything that waits; StoreAway."""
        if not self.drain():
            raise StoreAway("the experiment tracker is away")
        self._answer(lambda: self._tracker.mirror(model, versions, champion))

    def drain(self) -> bool:
        """Wait until everything was handed over; False where the tracker is away or stands still."""
        with self._guard:
            if not any(journal.waiting or journal.ended for journal in self._journals.values()):
                return True
        if self._resting(min(LAST_S, self._retry_s)):
            return False
        self._hurry.set()
        work, steps = self._worker.submit(self._hand_over), -1
        while True:
            try:
                work.result(PROGRESS_S)
                break
            except TooLate:
                if steps == self._steps:
                    self._lost(_silent(self._tracker.address, PROGRESS_S))
                    break
                steps = self._steps
        self._hurry.clear()
        with self._guard:
            return not any(journal.waiting for journal in self._journals.values())

    def close(self) -> None:
        """Hand over what can be, and let go of the rest, which stays."""
        self.drain()
        self._worker.end()
        with self._guard:
            for journal in self._journals.values():
                journal.close()
            self._journals.clear()

    def _enter(self, run: str, do: str, **facts: Any) -> None:
        with self._guard:
            self._journal(run).add(do, **facts)
        self._soon()

    def _journal(self, run: str) -> Journal:
        if run not in self._journals:
            try:
                self._journals[run] = Journal(self._folder / run)
            except BlockingIOError:
                # another process is telling of this run: what we add to it has a folder of its own
                self._journals[run] = Journal(self._folder / new_id(f"{run}{BESIDE}"))
        return self._journals[run]

    def _inherit(self) -> list[str]:
        """Take over the journals of processes that have ended; the runs that they did not finish."""
        killed = []
        with self._guard:
            for place in sorted(self._folder.glob("*")) if self._folder.is_dir() else []:
                held = any(journal.place == place for journal in self._journals.values())
                journal = None if held else Journal.left(place)
                if journal is None:
                    continue
                if not journal.ended:
                    journal.add("finish", ok=None, at=now())
                    killed.append(journal.run)
                self._journals[place.name] = journal
                self._inherited.add(place.name)
        return killed

    def _soon(self) -> None:
        """Have the entries handed over in a moment, unless the tracker was away just now."""
        with self._guard:
            if self._asked_for or self._resting(self._retry_s):
                return
            self._asked_for = True
        self._worker.submit(self._gather)

    def _gather(self) -> None:
        self._hurry.wait(GATHER_S)
        self._hand_over()

    def _hand_over(self) -> None:
        """Tell the tracker, in the worker's thread, what every journal holds."""
        self._asked_for = False
        try:
            for key, journal in list(self._journals.items()):
                while waiting := journal.waiting:
                    done = self._tell_tracker(journal, waiting)
                    with self._guard:
                        journal.mark(done)
                    self._steps += 1
                    self._away_since = None
                self._drop(key, journal)
        except StoreAway as error:
            self._lost(error)

    def _drop(self, key: str, journal: Journal) -> None:
        with self._guard:
            if journal.waiting or not journal.ended:
                return
            journal.drop()
            self._journals.pop(key, None)
            if key in self._inherited:
                self._inherited.discard(key)
                self._tell(f"run {journal.run}, which waited for the tracker, is on {self._tracker.address} now")

    def _tell_tracker(self, journal: Journal, waiting: Sequence[Entry]) -> int:
        """Tell it the first of the entries, or the first figures at once; how many that were.

        What it refuses is left out, and said: asking again would hold up the rest for ever.
        """
        do, group = next(iter(groupby(waiting, key=lambda entry: entry["do"])))
        some = list(group) if do == "log" else [waiting[0]]
        try:
            self._apply(journal, some)
        except StoreAway:
            raise
        except RoundsError as error:
            self._once(f"refused {journal.run}", f"the tracker refuses a part of run {journal.run}: {error}")
        return len(some)

    def _apply(self, journal: Journal, some: Sequence[Entry]) -> None:
        run, entry = journal.run, some[0]
        if entry["do"] == "start":
            self._tracker.start(entry["name"], entry["params"], entry["tags"], at=entry["at"])
        elif entry["do"] == "reopen":
            self._tracker.reopen(run)
        elif entry["do"] == "log":
            self._tracker.enter(run, [(one["metrics"], one["step"], one["at"]) for one in some])
        elif entry["do"] == "keep":
            self._tracker.keep(run, journal.file(entry), entry["folder"])
        else:
            self._tracker.finish(run, ok=entry["ok"], at=entry["at"])

    def _answer(self, ask: Callable[[], T]) -> T:
        """What the tracker answers in time; StoreAway where it does not, or did not just now."""
        if self._resting(self._retry_s):
            raise StoreAway("the experiment tracker is away")
        self._hurry.set()
        try:
            # a file of our own is made in its own time, on however busy a machine
            return self._worker.submit(ask).result(ANSWER_S if self._tracker.remote else None)
        except TooLate:
            silent = _silent(self._tracker.address, ANSWER_S)
            self._lost(silent)
            raise silent from None
        except StoreAway as error:
            self._lost(error)
            raise
        finally:
            self._hurry.clear()

    def _resting(self, seconds: float) -> bool:
        """Whether the tracker was found away less than so many seconds ago."""
        return self._away_since is not None and time.monotonic() < self._away_since + seconds

    def _lost(self, error: StoreAway) -> None:
        self._away_since = time.monotonic()
        then = "nothing stops for it: what it is to be told waits in the spool, for the next command that trains"
        self._once("away", f"{error}\n  {then}, or `rounds sync`")

    def _once(self, what: str, text: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._tell(text)


class _Worker:
    """One thread that does one thing after the other, and that nobody waits for at the end of the process."""

    def __init__(self) -> None:
        self._todo: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Have it done; its result to be."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="tell the tracker", daemon=True)
            self._thread.start()
        made: Future[T] = Future()
        self._todo.put((made, work))
        return made

    def end(self) -> None:
        """Do no more after what is under way."""
        self._todo.put(None)
        if self._thread is not None:
            self._thread.join(1.0)

    def _run(self) -> None:
        while (task := self._todo.get()) is not None:
            future, work = task
            try:
                future.set_result(work())
            except BaseException as error:  # whoever waits for the result is told
                future.set_exception(error)


def _silent(address: str, seconds: float) -> StoreAway:
    fault = Fault("MLflow does not answer", address, f"an answer in {seconds:g} s", next="see whether it runs")
    return StoreAway("the experiment tracker is away", [fault])
