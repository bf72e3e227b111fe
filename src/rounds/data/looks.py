"""What every film of a data set looks like and which show one picture, kept beside it so that all checks need one
decoding."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np

from rounds.core.ids import canonical, write_whole
from rounds.core.records import DatasetVersion
from rounds.data.copies import Copies, find_copies
from rounds.data.take import Taken, look_at
from rounds.imaging.likeness import Likeness, Look
from rounds.imaging.packed import ADMITTED, Films

# Another release may look otherwise: its looks are another file.
_FILE = "cache/looks-1.npz"
_COPIES = "cache/copies-1.json"
_THREADS = 4
_CHUNK = 512
_TEXT = {"digest": "S64", "pixels": "S32", "signature": "V128"}


def keep(path: Path, films: Sequence[Taken], copies: Copies | None) -> None:
    """Write what is known of a data set's films into its cache; one that cannot be written does no harm."""
    with suppress(OSError):
        _keep_looks(path, ((film.digest, film.look) for film in films))
        if copies is not None:
            write_whole(
                path / _COPIES,
                canonical(
                    {"pictures": copies.pictures, "unsearched": copies.unsearched}
                    | {"compared": [[*pair, *alike] for pair, alike in copies.compared.items()]}
                ),
            )


def seen(dataset: DatasetVersion, opened: Films | None = None) -> tuple[list[Taken], Copies]:
    """The films of a data set, which may be open already, in its order, with their looks, and which are copies: from
    its cache where that is whole, else looked at now and kept there. Raises: DamagedData."""
    films = Films(dataset.path) if opened is None else opened
    taken = _films(films, dataset.path)
    copies = _kept_copies(dataset.path)
    if copies is None:
        place = {film.digest: index for index, film in enumerate(taken)}
        copies = find_copies(taken, lambda film: films.bytes(place[film.digest]))
        keep(dataset.path, taken, copies)
    return taken, copies


def unseen(dataset: DatasetVersion, images: Sequence[Callable[[], bytes]]) -> list[int]:
    """Places of the images that show no picture of the data set, exactly or nearly, nor one of an image before them.

    Raises: DamagedData, BadImage, and what reading raises.
    """
    held, films = seen(dataset)[0], Films(dataset.path)
    looked = [look_at(image(), ADMITTED) for image in images]
    new = [Taken(f"{place}", "", "", "", f"{place}", look) for place, look in enumerate(looked)]
    place = {film.digest: index for index, film in enumerate(held)}
    copies = find_copies(
        [*held, *new], lambda film: films.bytes(place[film.digest]) if film.label else images[int(film.digest)]()
    )
    known = {copies.picture(film) for film in held}
    found: list[int] = []
    for index, film in enumerate(new):
        if copies.picture(film) not in known:
            known.add(copies.picture(film))
            found.append(index)
    return found


def _keep_looks(path: Path, films: Iterable[tuple[str, Look]]) -> None:
    by_digest = dict(films)
    columns = {"digest": list(by_digest)} | {
        key: [getattr(look, key) for look in by_digest.values()] for key in Look._fields
    }
    arrays = {key: np.array(column, _TEXT.get(key)) for key, column in columns.items()}
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    write_whole(path / _FILE, file.getvalue())


def _films(films: Films, path: Path) -> list[Taken]:
    looks = _kept(path)
    rows = films.rows()
    places = dict(zip(rows.digests, rows.index.tolist(), strict=True))
    missing = {digest: index for digest, index in places.items() if digest not in looks}
    if missing:
        looks |= dict(zip(missing, _looked(films, list(missing.values())), strict=True))
    splits = [films.split(index) for index in range(len(films))]
    return [
        Taken(
            rows.names[i],
            films.classes[rows.labels[i]],
            splits[i],
            rows.subjects[i],
            digest,
            looks[digest],
            rows.attributes[i],
        )
        for i, digest in enumerate(rows.digests)
    ]


def _looked(films: Films, indices: list[int]) -> Iterator[Look]:
    """The looks of films by index, decoded a few at a time."""
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(indices), _CHUNK):
            part = indices[start : start + _CHUNK]
            yield from pool.map(lambda index: look_at(films.bytes(index), ADMITTED), part)


def _kept(path: Path) -> dict[str, Look]:
    """The looks in the cache; none where there is no whole one."""
    try:
        with np.load(path / _FILE, allow_pickle=False) as kept:
            columns = {key: kept[key] for key in ("digest", *Look._fields)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}
    texts = {key: [value.decode() for value in columns[key].tolist()] for key in ("digest", "pixels")}
    plain = {key: texts.get(key, column.tolist()) for key, column in columns.items()}
    rows = zip(*(plain[key] for key in Look._fields), strict=True)
    return dict(zip(texts["digest"], (Look(*row) for row in rows), strict=True))


def _kept_copies(path: Path) -> Copies | None:
    try:
        kept = json.loads((path / _COPIES).read_bytes())
        compared = {(one, other): Likeness(*alike) for one, other, *alike in kept["compared"]}
        return Copies(kept["pictures"], compared, kept["unsearched"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
