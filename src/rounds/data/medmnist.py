"""MedMNIST by name and size: the official files, fetched once, checked, and kept in the workspace's cache.

Addresses, MD5 sums and names of classes are those of medmnist/info.py of the repository MedMNIST/MedMNIST at commit
3bb56be69bca38e5f105b21e4d6482b91354d3a4 (version 3.0.2); the files are record 10519652 of Zenodo (doi
10.5281/zenodo.10519652, CC BY 4.0; DermaMNIST CC BY-NC 4.0), made by Yang et al., Scientific Data 10:41, 2023.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

from rounds.core.errors import DamagedData, Fault, StoreAway
from rounds.data.items import bad_source
from rounds.data.remote import RemoteFile, is_address

SCHEME = "medmnist:"
OFFICIAL = "https://zenodo.org/records/10519652/files"

_CHUNK = 1024 * 1024
_TRIES = 4
_PAUSE_S = 0.2
_TIMEOUT_S = 60.0
_ORGANS = (
    *("bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver", "lung-left"),
    *("lung-right", "pancreas", "spleen"),
)
_REFUSED = {
    "chestmnist": "its films bear up to 14 findings each, where a film here has one class",
    **dict.fromkeys(
        [f"{kind}mnist3d" for kind in ("organ", "nodule", "adrenal", "fracture", "vessel", "synapse")],
        "its images are volumes, where a film here is flat",
    ),
}

Progress = Callable[[int, int], None]


class Official(NamedTuple):
    """What is published of one set: MD5 by size in pixels, and the names of the labels 0, 1, ..."""

    md5: Mapping[int, str]
    classes: tuple[str, ...]


def _set(*md5: str, classes: tuple[str, ...]) -> Official:
    return Official(dict(zip((28, 64, 128, 224), md5, strict=True)), classes)


SETS: dict[str, Official] = {
    "pathmnist": _set(
        "a8b06965200029087d5bd730944a56c1",
        "55aa9c1e0525abe5a6b9d8343a507616",
        "ac42d08fb904d92c244187169d1fd1d9",
        "2c51a510bcdc9cf8ddb2af93af1eadec",
        classes=(
            *("adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle", "normal colon mucosa"),
            *("cancer-associated stroma", "colorectal adenocarcinoma epithelium"),
        ),
    ),
    "dermamnist": _set(
        "0744692d530f8e62ec473284d019b0c7",
        "b70a2f5635c6199aeaa28c31d7202e1f",
        "2defd784463fa5243564e855ed717de1",
        "8974907d8e169bef5f5b96bc506ae45d",
        classes=(
            *("actinic keratoses and intraepithelial carcinoma", "basal cell carcinoma"),
            *("benign keratosis-like lesions", "dermatofibroma", "melanoma", "melanocytic nevi", "vascular lesions"),
        ),
    ),
    "octmnist": _set(
        "c68d92d5b585d8d81f7112f81e2d0842",
        "e229e9440236b774d9f0dfef9d07bdaf",
        "0a97e76651ace45c5d943ee3f65b63ae",
        "abc493b6d529d5de7569faaef2773ba3",
        classes=("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
    ),
    "pneumoniamnist": _set(
        "28209eda62fecd6e6a2d98b1501bb15f",
        "8f4eceb4ccffa70c672198ea285246c6",
        "05b46931834c231683c68f40c47b2971",
        "d6a3c71de1b945ea11211b03746c1fe1",
        classes=("normal", "pneumonia"),
    ),
    "retinamnist": _set(
        "bd4c0672f1bba3e3a89f0e4e876791e4",
        "afda852cc34dcda56f86ad2b2457dbcc",
        "e48e916a24454daf90583d4e6efb1a18",
        "eae7e3b6f3fcbda4ae613ebdcbe35348",
        classes=("0", "1", "2", "3", "4"),
    ),
    "breastmnist": _set(
        "750601b1f35ba3300ea97c75c52ff8f6",
        "742edef2a1fd1524b2efff4bd7ba9364",
        "363e4b3f8d712e9b5de15470a2aaadf1",
        "b56378a6eefa9fed602bb16d192d4c8b",
        classes=("malignant", "normal, benign"),
    ),
    "bloodmnist": _set(
        "7053d0359d879ad8a5505303e11de1dc",
        "2b94928a2ae4916078ca51e05b6b800b",
        "adace1e0ed228fccda1f39692059dd4c",
        "b718ff6835fcbdb22ba9eacccd7b2601",
        classes=(
            *("basophil", "eosinophil", "erythroblast"),
            "immature granulocytes(myelocytes, metamyelocytes and promyelocytes)",
            *("lymphocyte", "monocyte", "neutrophil", "platelet"),
        ),
    ),
    "tissuemnist": _set(
        "ebe78ee8b05294063de985d821c1c34b",
        "123ece2eba09d0aa5d698fda57103344",
        "61b955355d7425a89687b06cca3ce0c2",
        "b077128c4a949f0a4eb01517f9037b9c",
        classes=(
            *("Collecting Duct, Connecting Tubule", "Distal Convoluted Tubule", "Glomerular endothelial cells"),
            *("Interstitial endothelial cells", "Leukocytes", "Podocytes", "Proximal Tubule Segments"),
            "Thick Ascending Limb",
        ),
    ),
    "organamnist": _set(
        "68e3f8846a6bd62f0c9bf841c0d9eacc",
        "2dcccc29b88e6da5a01161ef20cda288",
        "eeae80d0a227a8d099027e1b3cfd3b60",
        "50747347e05c87dd3aaf92c49f9f3170",
        classes=_ORGANS,
    ),
    "organcmnist": _set(
        "b9ceb9546e10131b32923c5bbeaea2b1",
        "3ce34a8724ea6f548e6db4744d03b6a9",
        "773c1f009daa3fe5d9a2a201b2a7ed94",
        "050f5e875dc056f6768abf94ec9995d1",
        classes=_ORGANS,
    ),
    "organsmnist": _set(
        "9ab87b696fb54e2a387ebe992d6ed5f1",
        "53a6d115339d874c25e309a994ff46d3",
        "ded0c5fa01a95dc4978b956f613e9b8e",
        "b354719e553fbbb2513d5533f52a4cb1",
        classes=_ORGANS,
    ),
}


def class_names(file: str, labels: frozenset[str]) -> tuple[str, ...]:
    """The official names of an array file's labels where its own name says which set it is, else none."""
    for name, official in SETS.items():
        known = {str(number) for number in range(len(official.classes))}
        # Files that were recombined from PneumoniaMNIST's are called by the finding as well.
        told = name if name != "pneumoniamnist" else "pneumonia"
        if told in file.lower() and labels <= known:
            return official.classes
    return ()


def fetch(name: str, *, cache: Path, mirror: str | None = None, progress: Progress | None = None) -> Path:
    """The official file of `pneumoniamnist` (28 pixels), `pneumoniamnist_64`, ... with its published MD5.

    It is looked for in `cache`, then fetched from `mirror` (a folder, or an address of one: http, s3, gs, ...), or else
    from Zenodo. What a broken transfer brought is kept, and the next one goes on behind it.

    Raises: BadSource for a name that is none, DamagedData for bytes with another sum, StoreAway, OSError for the disk.
    """
    file, expected = f"{name}.npz", _published(name)
    if mirror and not is_address(mirror):
        path = Path(mirror).expanduser() / file
        _check(path, expected, str(path))
        return path
    cache.mkdir(parents=True, exist_ok=True)
    target, part = cache / file, cache / f".{file}.part"
    with part.open("ab+") as whole:
        # Another process that fetches the same file waits here, and finds it whole.
        fcntl.flock(whole, fcntl.LOCK_EX)
        if not target.exists() or _md5(target) != expected:
            address = f"{(mirror or OFFICIAL).rstrip('/')}/{file}"
            _download(address, whole, progress)
            try:
                _check(part, expected, address)
            except DamagedData:
                whole.truncate(0)
                raise
            os.fsync(whole.fileno())
            part.replace(target)
    part.unlink(missing_ok=True)
    return target


def _published(name: str) -> str:
    """The MD5 of the named file. Raises: BadSource."""
    base, _, size = name.partition("_")
    here = f"{SCHEME}{name}"
    if base in _REFUSED:
        raise bad_source(here, Fault("this set is not taken", base, f"one of {', '.join(SETS)}", _REFUSED[base]))
    if base not in SETS:
        near = get_close_matches(base, SETS, 1)
        hint = f"did you mean {SCHEME}{near[0]}?" if near else ""
        raise bad_source(here, Fault("no such MedMNIST set", base, f"one of {', '.join(SETS)}", base, hint))
    if size not in ("", "28", "64", "128", "224") or name.endswith("_"):
        raise bad_source(here, Fault("no such size", name, f"{base}, {base}_64, {base}_128 or {base}_224", size))
    return SETS[base].md5[int(size or 28)]


def _check(path: Path, expected: str, where: str) -> None:
    """Raises DamagedData for a file with another MD5, StoreAway where there is none; `where` it came from."""
    if not path.is_file():
        raise StoreAway(f"cannot get {where}", [Fault("no such file in the mirror", where, "the official file")])
    found = _md5(path)
    if found != expected:
        then = "fetch it again from its publisher; to take this very file, give its path as the source"
        fault = Fault("not the official file", where, f"md5 {expected}", f"md5 {found}", then)
        raise DamagedData(f"{where} has another checksum than the official file", [fault])


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _download(address: str, whole: IO[bytes], progress: Progress | None) -> None:
    """Appends what is missing of the file at the address; goes on where the connection broke, while that brings bytes.

    Raises: StoreAway.
    """
    web = address.startswith(("http://", "https://"))
    idle = 0
    while True:
        start = whole.seek(0, os.SEEK_END)
        stopped = (_from_web if web else _from_store)(address, start, whole, progress)
        whole.flush()
        if not stopped:
            return
        idle = 0 if whole.tell() > start else idle + 1
        if idle == _TRIES:
            then = "run the command again: it goes on where this one stopped; or name another place: --mirror URL"
            fault = Fault("the transfer broke off", address, "the whole file", stopped, then)
            raise StoreAway(f"cannot get {address}", [fault])
        time.sleep(_PAUSE_S * 2**idle)


def _from_web(address: str, start: int, whole: IO[bytes], progress: Progress | None) -> str:
    """One transfer over HTTP, from `start` where the server can; what stopped it, or nothing. Raises: StoreAway."""
    import httpx  # a third of the time that importing all of this room takes

    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        with httpx.stream("GET", address, headers=headers, timeout=_TIMEOUT_S, follow_redirects=True) as answer:
            if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                return ""
            if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
                return f"{answer.status_code} {answer.reason_phrase}"
            if answer.is_error:
                got = f"{answer.status_code} {answer.reason_phrase}"
                raise StoreAway(f"cannot get {address}", [Fault("the server refuses", address, "the file", got)])
            at = start if answer.status_code == httpx.codes.PARTIAL_CONTENT else 0
            whole.truncate(at)
            total = at + int(answer.headers.get("Content-Length", 0))
            # As it comes: a chunk of fixed size would be lost where the connection breaks within it.
            _append(answer.iter_raw(), total, whole, progress)
    except httpx.TransportError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _from_store(address: str, start: int, whole: IO[bytes], progress: Progress | None) -> str:
    """The same from whatever else fsspec speaks; its clients try again by themselves."""
    with RemoteFile(address).open() as file:
        total = file.seek(0, os.SEEK_END)
        file.seek(start)
        _append(iter(partial(file.read, _CHUNK), b""), total, whole, progress)
    return ""


def _append(chunks: Iterable[bytes], total: int, whole: IO[bytes], progress: Progress | None) -> None:
    for chunk in chunks:
        whole.write(chunk)
        if progress:
            progress(whole.tell(), max(total, whole.tell()))
