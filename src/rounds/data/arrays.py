"""MedMNIST-style .npz files: {train,val,calibration,test}_{images,labels}, any subset, read image by image."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from rounds.core.errors import Fault
from rounds.core.specs import SPLITS
from rounds.data.items import Item, Source, bad_source
from rounds.data.medmnist import class_names
from rounds.data.remote import RemoteFile
from rounds.imaging.packed import stored_png

_IMAGES = "uint8 (n, height, width) or (n, height, width, 3)"
_LABELS = "whole numbers (n,) or (n, 1)"
_KEYS = "train_images and train_labels, and the same for val, calibration or test"
_MOST_LABELS = 100_000_000
_BROKEN = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError)


class _Array(NamedTuple):
    """One member of the archive as its header describes it."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]


@contextmanager
def open_arrays(path: Path | RemoteFile) -> Iterator[Source]:
    """Opens a MedMNIST-style .npz without loading it whole; nothing pickled is ever loaded.

    Classes are named by their numbers, or as MedMNIST does where the file's name says which of its sets it is.
    Raises: BadSource naming every array that is missing, of the wrong shape or kind, or cut short.
    """
    with path.open("rb") as raw:
        with _whole(path, path.name):
            unzipped = zipfile.ZipFile(raw)
        arrays, faults = _headers(unzipped)
        splits = _check(path, arrays, faults)
        labels = {split: _read_labels(path, unzipped, f"{split}_labels", arrays[f"{split}_labels"]) for split in splits}
        values = frozenset(str(value) for part in labels.values() for value in np.unique(part))
        names = {str(number): name for number, name in enumerate(class_names(path.name, values))}
        yield Source(
            sum(map(len, labels.values())),
            _items(path, unzipped, arrays, labels, names),
            sealed=True,
            labels=frozenset(names.get(value, value) for value in values),
        )


def _headers(unzipped: zipfile.ZipFile) -> tuple[dict[str, _Array], list[Fault]]:
    """The arrays that belong to a split, by key, and what is wrong with their headers."""
    arrays: dict[str, _Array] = {}
    faults: list[Fault] = []
    wanted = {f"{split}_{part}" for split in SPLITS for part in ("images", "labels")}
    for key in wanted & {name.removesuffix(".npy") for name in unzipped.namelist()}:
        try:
            with unzipped.open(f"{key}.npy") as file:
                arrays[key] = _Array(*_read_header(file))
        except _BROKEN as error:
            faults.append(_broken(key, str(error)))
    return arrays, faults


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    if version == (1, 0):
        return npy.read_array_header_1_0(file)
    if version == (2, 0):
        return npy.read_array_header_2_0(file)
    raise ValueError(f"array format {version[0]}.{version[1]} is not taken")


def _check(path: Path | RemoteFile, arrays: dict[str, _Array], faults: list[Fault]) -> list[str]:
    """The splits that are there, with both arrays, of fitting shapes; raises BadSource for all that is wrong."""
    broken = {fault.where for fault in faults}
    splits = [split for split in SPLITS if {f"{split}_images", f"{split}_labels"} & (arrays.keys() | broken)]
    for split in splits:
        images, labels = f"{split}_images", f"{split}_labels"
        lacking = [key for key in (images, labels) if key not in arrays and key not in broken]
        faults += [Fault("an array is missing", key, f"{images} and {labels}") for key in lacking]
        faults += [fault for key in (images, labels) if key in arrays for fault in _wrong_array(key, arrays[key])]
        if images in arrays and labels in arrays and arrays[images].shape[:1] != arrays[labels].shape[:1]:
            got = f"{arrays[images].shape[0]} images and {arrays[labels].shape[0]} labels"
            faults.append(Fault("images and labels differ in number", split, "one label an image", got))
    if not splits:
        faults.append(Fault("no images and labels", path.name, _KEYS))
    if faults:
        raise bad_source(str(path), *faults)
    return splits


def _wrong_array(key: str, array: _Array) -> list[Fault]:
    shape, got = array.shape, f"{array.dtype} {array.shape}"
    if array.dtype.hasobject:
        return [Fault("a pickled array is never loaded", key, _IMAGES if key.endswith("images") else _LABELS, got)]
    if array.fortran and len(shape) > 1 and shape != (shape[0], 1):
        return [Fault("columns come first", key, "an array in C order", got, "save np.ascontiguousarray of it")]
    if key.endswith("images"):
        fits = array.dtype == np.uint8 and (len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3)))
        return [] if fits and min(shape) > 0 else [Fault("wrong shape or kind", key, _IMAGES, got)]
    fits = array.dtype.kind in "iub" and (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1))
    return [] if fits and shape[0] <= _MOST_LABELS else [Fault("wrong shape or kind", key, _LABELS, got)]


def _read_labels(path: Path | RemoteFile, unzipped: zipfile.ZipFile, key: str, array: _Array) -> NDArray[np.int64]:
    with _whole(path, key), unzipped.open(f"{key}.npy") as file:
        _read_header(file)
        data = _exactly(file, array.shape[0] * array.dtype.itemsize)
    return np.frombuffer(data, array.dtype).astype(np.int64)


def _items(
    path: Path | RemoteFile,
    unzipped: zipfile.ZipFile,
    arrays: Mapping[str, _Array],
    labels: Mapping[str, NDArray[np.int64]],
    names: Mapping[str, str],
) -> Iterator[Item]:
    for split, values in labels.items():
        key = f"{split}_images"
        shape = arrays[key].shape[1:]
        flat = shape[:2] if shape[2:] == (1,) else shape
        size = math.prod(shape)
        with _whole(path, key), unzipped.open(f"{key}.npy") as file:
            _read_header(file)
            for number, value in enumerate(map(str, values.tolist())):
                image = np.frombuffer(_exactly(file, size), np.uint8).reshape(flat)
                yield Item(f"{key}[{number}]", names.get(value, value), split, size, partial(stored_png, image))


def _exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise EOFError(f"{len(data)} bytes where {size} were announced")
    return data


@contextmanager
def _whole(path: Path | RemoteFile, key: str) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        raise bad_source(str(path), _broken(key, str(error))) from error


def _broken(where: str, got: str) -> Fault:
    return Fault("the array is broken", where, "a whole .npz that numpy.savez wrote", got, "copy or download it again")
