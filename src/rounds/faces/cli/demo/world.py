"""The world that the demo lives in: a source split into what the makers see and a stream that comes later."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rounds.core.ids import hash01
from rounds.core.ports import Ports
from rounds.core.records import Bundle, DatasetVersion, Prepared
from rounds.core.specs import DataSpec
from rounds.data.assemble import assemble
from rounds.imaging.corrupt import corrupt
from rounds.imaging.decode import decode
from rounds.imaging.fit import encode_png, to_pixels
from rounds.imaging.packed import Film, Films, Rows
from rounds.loop import intake
from rounds.runtime.predictor import Predictor
from rounds.runtime.verdict import decide
from rounds.wiring.settings import Settings

Pixels = npt.NDArray[np.uint8]
STREAM_SHARE = 0.75
# the scanner changes after this share of the stream, or 1,000 films where that leaves enough; then come the candidates'
# fresh films
CLEAN, CLEAN_FILMS, CLEAN_MOST, CURED = 0.36, 1000, 0.44, 0.67
FLIPPED = 0.15
# severities are mild: gamma at most 1.4 (or its inverse), blur at most 1.5 pixels on a film of 64
LADDER = (
    *(("blur", severity) for severity in (0.8, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5)),
    *(("gamma", severity) for severity in (1.2, 1.3, 1.4, 0.83, 0.77, 0.72)),
)
WANTED_DROP = (0.08, 0.16)


@dataclass(frozen=True)
class Shift:
    """A scanner that changed: one corruption at one severity, and the accuracy it costs on validation films."""

    kind: str
    severity: float
    drop: float

    def __call__(self, film: Film) -> Film:
        """The film as the changed scanner would have taken it."""
        return replace(film, data=encode_png(_changed(decode(film.data), self.kind, self.severity)))

    def __str__(self) -> str:
        return f"{self.kind} {self.severity:g}"


@dataclass(frozen=True)
class World:
    """`base` is what the first model's makers have; `stream` are the films that come later, one subject never in both.

    At `changes_at` in the stream the scanner changes, at `fresh_from` the candidates' fresh films begin; no subject
    is in two of these parts, so whoever learns from the films of one has seen nobody of the next.
    """

    prepared: Prepared
    base: DatasetVersion
    pool: Films
    stream: tuple[int, ...]
    changes_at: int
    fresh_from: int

    def films(self, start: int, stop: int, shift: Shift | None = None) -> Iterator[Film]:
        """Stream films from one place to another, through the changed scanner where one is given."""
        for i in self.stream[start:stop]:
            film = self.pool.film(i)
            yield shift(film) if shift else film


def make(ports: Ports, spec: DataSpec) -> World:
    """Prepare the source and hold a stream back from its training split, by subject."""
    prepared = intake.prepare(ports, spec, mirror=Settings().medmnist_mirror)
    pool = Films(prepared.dataset.path)
    rows = pool.rows("train")
    order = {subject: hash01(spec.seed, subject) for subject in dict.fromkeys(rows.subjects)}
    later = [i for i, subject in zip(rows.index, rows.subjects, strict=True) if order[subject] < STREAM_SHARE]
    held = {int(i) for i in later}
    stream, changes_at, fresh_from = _parted([int(i) for i in later], rows, order, spec.seed)
    base = _assembled(ports, pool, "films", (pool.film(i) for i in range(len(pool)) if i not in held))
    return World(prepared, base, pool, stream, changes_at, fresh_from)


def _parted(
    films: Sequence[int], rows: Rows, order: Mapping[str, float], seed: int
) -> tuple[tuple[int, ...], int, int]:
    """The films shuffled within the three parts of the stream, whole subjects in each, and where the parts begin."""
    subject = dict(zip(rows.index.tolist(), rows.subjects, strict=True))
    clean = max(CLEAN, min(CLEAN_FILMS / max(1, len(films)), CLEAN_MOST))
    begun: dict[str, float] = {}
    for place, i in enumerate(sorted(films, key=lambda i: (order[subject[i]], subject[i], i))):
        begun.setdefault(subject[i], place / len(films))
    part = {i: sum(begun[subject[i]] >= end for end in (clean, CURED)) for i in films}
    stream = tuple(sorted(films, key=lambda i: (part[i], hash01(seed, "stream", i))))
    sizes = [sum(place == n for place in part.values()) for n in range(2)]
    return stream, sizes[0], sizes[0] + sizes[1]


def choose_shift(bundle: Bundle, films: Sequence[Film]) -> Shift:
    """The first change of the ladder that costs the model 8 to 16 accuracy points on these films, else the nearest to
    it."""
    predictor = Predictor(bundle)
    y = np.array([bundle.classes.index(film.label) for film in films])
    decoded = [decode(film.data) for film in films]
    before = _accuracy(predictor, [to_pixels(film.data, bundle.imaging) for film in films], y)
    tried = []
    for kind, severity in LADDER:
        changed = [to_pixels(encode_png(_changed(pixels, kind, severity)), bundle.imaging) for pixels in decoded]
        tried.append(Shift(kind, severity, before - _accuracy(predictor, changed, y)))
        if WANTED_DROP[0] <= tried[-1].drop <= WANTED_DROP[1]:
            return tried[-1]
    low, high = WANTED_DROP
    return min(tried, key=lambda shift: max(low - shift.drop, shift.drop - high))


def flipped(ports: Ports, world: World, seed: int) -> DatasetVersion:
    """The makers' data with 15 % of the training labels wrong: what a careless labelling shift would leave."""
    classes = world.base.classes
    films = Films(world.base.path)

    def spoiled() -> Iterator[Film]:
        for i in range(len(films)):
            film = films.film(i)
            if film.split == "train" and hash01(seed, "flip", i) < FLIPPED:
                others = [name for name in classes if name != film.label]
                film = replace(film, label=others[int(hash01(seed, "to", i) * len(others))])
            yield film

    return _assembled(ports, films, "planted", spoiled())


def _assembled(ports: Ports, films: Films, name: str, chosen: Iterable[Film]) -> DatasetVersion:
    known = films.dataset.subjects_known
    dataset = assemble(name, chosen, films.dataset.classes, folder=ports.datasets, subjects_known=known)
    intake.enter(ports, dataset, why="made for the demo", who="demo")
    return dataset


def _accuracy(
    predictor: Predictor,
    pixels: Sequence[Pixels],
    y: npt.NDArray[np.int64],
) -> float:
    label, _ = decide(predictor.bundle.calibration, predictor.answer(np.stack(pixels)).logits)
    return float(np.mean(label == y))


def _changed(pixels: Pixels, kind: str, severity: float) -> Pixels:
    """One decoded film, (h, w) or (h, w, 3), through the corruption; blur is in pixels of a film of 64."""
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    scaled = severity * max(pixels.shape[:2]) / 64 if kind == "blur" else severity
    changed: Pixels = corrupt(planes[None], kind, scaled)[0]
    return changed
