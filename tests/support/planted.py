"""Sources with known leaks: films in Kaggle's layout, some of them copied across the splits with changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np

from rounds.core.records import DatasetVersion
from rounds.imaging.fit import encode_png
from rounds.imaging.packed import Film, write_films
from rounds.imaging.phantom import draw

Pixels = np.ndarray

SPLITS = ("train", "train", "val", "test")


def jpeg(film: Pixels, quality: int) -> bytes:
    """The film as JPEG."""
    return bytes(cv2.imencode(".jpg", film, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])


def resized(film: Pixels, side: int) -> Pixels:
    """The film at another size."""
    return np.asarray(cv2.resize(film, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def brighter(film: Pixels, levels: int) -> Pixels:
    """The film with a constant added."""
    return np.clip(film.astype(int) + levels, 0, 255).astype(np.uint8)


# What is done to a film, and how the check names the way back.
CHANGES: Mapping[str, tuple[Callable[[Pixels], bytes], str]] = {
    "exact": (encode_png, "the same pixels"),
    "encoded": (lambda film: jpeg(film, 80), "encoded again"),
    "brighter": (lambda film: encode_png(brighter(film, 2)), "shifted by -2.0 gray levels"),
    "resized": (lambda film: encode_png(resized(film, film.shape[0] * 3 // 4)), "resized"),
    "mirrored": (lambda film: encode_png(film[:, ::-1]), "mirrored"),
}


def phantom_folders(root: Path, n: int = 60, *, splits: tuple[str, ...] = ("train", "test"), seed: int = 3) -> Path:
    """Phantoms of 64 pixels in split and class folders, named by subject; every subject is in one split."""
    for film in draw(n, seed=seed, size=64):
        split = splits[int(film.subject.rsplit("-", 1)[-1]) % len(splits)] if splits else ""
        place = root / split / film.label / f"{film.name}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(encode_png(film.pixels))
    return root


def phantoms(n: int = 240, seed: int = 11) -> list[Film]:
    """Phantoms in three splits by subject."""
    return [
        Film(encode_png(film.pixels), film.label, film.subject, SPLITS[int(film.subject[-5:]) % 4], film.name)
        for film in draw(n, seed=seed, size=64)
    ]


def kept(folder: Path, films: Iterable[Film]) -> DatasetVersion:
    """The films as a data set that nothing has checked."""
    return write_films(folder / "datasets", "set", ("normal", "opacity"), films, subjects_known=True)
