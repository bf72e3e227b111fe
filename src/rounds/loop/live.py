"""A request from bytes to acknowledged answer: decode, compute, decide, keep, and only then answer."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from rounds.capture.capture import Attached, attach, audited, pseudonym
from rounds.core.errors import Fault, RoundsError, StoreAway, WorldFault
from rounds.core.ids import new_id
from rounds.core.ports import Ports
from rounds.core.records import Captured, Finding, Label, ModelVersion, Prediction, PredictRequest
from rounds.core.specs import ImagingSpec, MonitorSpec, ServeSpec
from rounds.imaging.dicom import is_dicom
from rounds.imaging.fit import to_pixels, without_names
from rounds.registry.catalogue import Catalogue
from rounds.serve.batcher import Batcher
from rounds.serve.swap import Answered, Seat, Seated

Pixels = npt.NDArray[np.uint8]
Tell = Callable[[str, Mapping[str, Any]], None]
T = TypeVar("T")

# Up to this many bytes a film is decoded in the batch thread: handing it to another thread costs more than decoding it.
SMALL_BYTES = 16 * 1024
DECODERS = 2
RETRY_S = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class _Film:
    """A request on its way: when it began (perf_counter, seconds), and its pixels where they are decoded already."""

    request: PredictRequest
    began: float
    pixels: Pixels | None = None
    imaging: ImagingSpec | None = None


class Live:
    """Answers films with the champion of the event log, keeps every answer before it is given, and follows the log.

    `tell` hears, from any thread, what operators want to know: `seated`, `not_seated`, `store_away`.
    """

    def __init__(
        self, ports: Ports, serve: ServeSpec, monitor: MonitorSpec, *, tell: Tell = lambda _what, _facts: None
    ) -> None:
        self.ports = ports
        self.swaps = 0
        self._spec = serve
        self._monitor = monitor
        self._tell = tell
        self._seat = Seat(serve)
        self._fault: RoundsError | None = None
        self._read_to = -1
        self._failed_at = 0.0
        self._decoding = 0
        self._ending = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="follow the log", daemon=True)
        self._decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="decode")
        self._batcher: Batcher[_Film, Prediction] | None = None

    async def start(self) -> None:
        """Put the champion in service, if there is one that can be loaded, and begin to follow the log."""
        self._batcher = Batcher(self._answer, self._spec)
        await asyncio.to_thread(self.follow)
        self._poller.start()

    async def stop(self) -> None:
        """Take no more, answer what is waiting, and end every thread."""
        self._ending.set()
        if self._batcher is not None:
            await self._batcher.drain()
        await asyncio.to_thread(self._decoders.shutdown)
        if self._poller.ident is not None:
            await asyncio.to_thread(self._poller.join)

    @property
    def seated(self) -> Seated | None:
        """The version in service."""
        return self._seat.current

    @property
    def following(self) -> bool:
        """Whether the log is being followed: a server that is not would answer with an old version for ever."""
        return self._poller.is_alive()

    @property
    def depth(self) -> int:
        """Requests that wait to be decoded or computed."""
        return self._decoding + (self._batcher.depth if self._batcher is not None else 0)

    def pseudonym(self, subject: str | None) -> str | None:
        """The keyed pseudonym under which a subject is stored."""
        return None if subject is None else pseudonym(self.ports.secret, subject)

    def vacancy(self) -> WorldFault:
        """Why no version is in service, as an error to answer with."""
        if self._fault is not None:
            return WorldFault(f"no champion in service: {self._fault.message}", self._fault.faults)
        nobody = Fault("no version has been promoted", next="register a bundle and promote it: rounds promote BUNDLE")
        return WorldFault("no champion", [nobody])

    def attach(self, labels: Sequence[Label | str]) -> Attached:
        """Keep true labels for answered films; text in place of a label is why it is none.

        Raises WorldFault where there is no champion to say what classes there are.
        """
        seated = self._seat.current
        if seated is None:
            raise self.vacancy()
        return attach(self.ports, labels, seated.bundle.classes, self.ports.clock())

    async def predict(self, request: PredictRequest) -> Prediction:
        """Answer one film; when this returns, the answer is kept.

        Raises:
            BadImage: the bytes are not an image that is taken.
            WorldFault: no champion, too many requests, the deadline has passed, or (StoreAway) the answer could not be
                kept and is therefore not given.
        """
        began = time.perf_counter()
        seated = self._seat.current
        if seated is None or self._batcher is None:
            raise self.vacancy()
        if is_dicom(request.data):
            # What is kept of it, and may be trained on, says nobody's name.
            request = replace(request, data=await self._beside(without_names, request.data, self._spec.limits))
        if len(request.data) <= SMALL_BYTES:
            return await self._batcher.submit(_Film(request, began))
        pixels = await self._beside(to_pixels, request.data, seated.bundle.imaging, self._spec.limits)
        return await self._batcher.submit(_Film(request, began, pixels, seated.bundle.imaging))

    async def _beside(self, work: Callable[..., T], *given: Any) -> T:
        """Do the work beside the batch thread, where the queue has room for it."""
        if self.depth >= self._spec.max_queue:
            full = Fault("the queue is full", expected=f"at most {self._spec.max_queue} waiting requests")
            raise WorldFault("the server is overloaded", [full])
        self._decoding += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._decoders, partial(work, *given))
        finally:
            self._decoding -= 1

    def _answer(self, films: Sequence[_Film]) -> Sequence[Prediction | Exception]:
        """Runs in the batch thread, with one version for the whole batch."""
        seated = self._seat.current
        assert seated is not None, "a seat once taken is never empty"
        decoded = [self._pixels(film, seated.bundle.imaging) for film in films]
        good = [(i, pixels) for i, pixels in enumerate(decoded) if not isinstance(pixels, RoundsError)]
        answers: dict[int, Prediction | Exception] = {
            i: error for i, error in enumerate(decoded) if isinstance(error, RoundsError)
        }
        if good:
            answered = seated.answer(np.stack([pixels for _, pixels in good]))
            kept = self._keep(seated, [films[i] for i, _ in good], answered)
            answers |= {i: prediction for (i, _), prediction in zip(good, kept, strict=True)}
        return [answers[i] for i in range(len(films))]

    def _pixels(self, film: _Film, imaging: ImagingSpec) -> Pixels | RoundsError:
        # A film that was decoded for the version before is decoded anew where the new one sees films otherwise.
        if film.pixels is not None and film.imaging == imaging:
            return film.pixels
        try:
            return to_pixels(film.request.data, imaging, self._spec.limits)
        except RoundsError as error:
            return error

    def _keep(self, seated: Seated, films: Sequence[_Film], answered: Answered) -> Sequence[Prediction]:
        """Keep a batch, images first, then all rows in one transaction; StoreAway where that fails."""
        predictions = _predictions(seated, films, answered)
        at, scores, logits = self.ports.clock(), answered.scores.tolist(), answered.outputs.logits.tolist()
        try:
            images = [self.ports.blobs.put(film.request.data) for film in films]
            rows = [
                Captured(
                    prediction=prediction.id,
                    at=at,
                    bundle=prediction.bundle,
                    version=prediction.version,
                    image=images[i],
                    label=prediction.label,
                    probabilities=tuple(prediction.probabilities.values()),
                    logits=tuple(logits[i]),
                    scores=tuple(scores[i]),
                    audited=audited(self.ports.secret, prediction.id, self._monitor.audit_share),
                    ms=prediction.ms,
                    reference=prediction.reference,
                    subject=films[i].request.subject,
                )
                for i, prediction in enumerate(predictions)
            ]
            self.ports.captures.record(rows)
        except WorldFault as error:
            self._tell("store_away", {"error": str(error), "films": len(films)})
            raise StoreAway(
                f"the answer could not be kept, so it is not given: {error.message}", error.faults
            ) from error
        return predictions

    def _poll(self) -> None:
        while not self._ending.wait(self._spec.poll_s):
            try:
                self.follow()
            except RoundsError as error:
                self._tell("store_away", {"error": str(error), "films": 0})

    def follow(self) -> None:
        """Look at the head of the log, and seat the champion where it is another one than before.

        A champion that cannot be loaded is reported to the log once and tried again every RETRY_S seconds: a file
        that is copied back heals the server without a restart. Raises WorldFault where the log cannot be read.
        """
        head = self.ports.events.head()
        again = self._fault is not None and time.monotonic() - self._failed_at > RETRY_S
        if head == self._read_to and not again:
            return
        catalogue = Catalogue.of(self.ports.events.read())
        champion = catalogue.champion
        seated = self._seat.current
        if champion is not None and (seated is None or seated.version != champion.version):
            self._seat_champion(champion, catalogue)
        else:
            self._fault = None
        self._read_to = head

    def _seat_champion(self, champion: ModelVersion, catalogue: Catalogue) -> None:
        began = time.perf_counter()
        try:
            path = self.ports.home / catalogue.bundle(champion.bundle).path
            seated = self._seat.take(champion.version, path, champion.bundle)
        except RoundsError as error:
            if self._fault is None or str(self._fault) != str(error):
                facts = {"version": champion.version, "bundle": champion.bundle, "error": str(error)}
                self._tell("not_seated", facts)
            self._fault, self._failed_at = error, time.monotonic()
            self._report(champion, error)
            return
        self._fault = None
        self.swaps += 1
        seconds = time.perf_counter() - began
        self._tell("seated", {"version": seated.version, "bundle": seated.bundle.digest, "seconds": seconds})

    def _report(self, champion: ModelVersion, error: RoundsError) -> None:
        """Append one integrity finding a bundle, whoever else serves and however often it is tried."""
        told = self.ports.events.read(kinds=("alarm",))
        known = {event.evidence.get("bundle") for event in told if event.evidence.get("kind") == "integrity"}
        if champion.bundle in known:
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
            why=str(error),
        )
        evidence = {"finding": finding.id, "version": champion.version, "bundle": champion.bundle, **finding.public()}
        self.ports.events.append("alarm", who="serve: integrity", why=finding.why, evidence=evidence)


def _predictions(seated: Seated, films: Sequence[_Film], answered: Answered) -> list[Prediction]:
    bundle, verdicts, now = seated.bundle, answered.verdicts, time.perf_counter()
    columns = zip(
        films,
        verdicts.label.tolist(),
        verdicts.probabilities.tolist(),
        verdicts.members.tolist(),
        verdicts.refer.tolist(),
        verdicts.reason,
        verdicts.ood.tolist(),
        strict=True,
    )
    return [
        Prediction(
            id=new_id("p_"),
            label=bundle.classes[label],
            probabilities=dict(zip(bundle.classes, probabilities, strict=True)),
            set=tuple(name for name, member in zip(bundle.classes, members, strict=True) if member),
            refer=refer,
            reason=reason,
            ood=ood,
            version=seated.version,
            bundle=bundle.digest,
            ms=(now - film.began) * 1000,
            reference=film.request.reference,
        )
        for film, label, probabilities, members, refer, reason, ood in columns
    ]
