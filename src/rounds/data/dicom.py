"""DICOM trees, as an archive exports them: pixels and a few harmless attributes are kept, who is on the film is not.

Neither names nor numbers of the source go on: subjects and films bear pseudonyms (HMAC-SHA256 under the caller's key),
and the bytes of a film are its windowed pixels as a plain PNG. Only refused files are told by path, to the operator.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath

from rounds.core.errors import BadImage, BadOverride, Fault
from rounds.core.specs import Limits
from rounds.data.dicom_labels import LabelTable, Said, paths_of, read_labels
from rounds.data.items import Item, Source, bad_source
from rounds.data.layout import is_clutter, place, walk
from rounds.imaging.decode import decode
from rounds.imaging.dicom import check_tag, film_elements, is_dicom, marked, reader, text_of
from rounds.imaging.packed import stored_png

_DIRECTORY = "DICOMDIR"
_READERS = 2
_NAMES = ("PatientName", "OtherPatientNames", "ReferringPhysicianName")
_NUMBERS = ("PatientID", "OtherPatientIDs", "AccessionNumber", "StudyID", "PatientBirthDate", "StudyDate")
_PLACES = ("InstitutionName", "StationName")
_UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
_JOINED = (*_UIDS, "AccessionNumber", "PatientID")
# The elements that become attributes, each with the values that it may have: anything else is not taken over.
_KEPT = {
    "modality": ("Modality", re.compile(r"[A-Z]{2,16}")),
    "view": ("ViewPosition", re.compile(r"[A-Z]{1,16}")),
    "model": ("ManufacturerModelName", re.compile(r"[\w .,()/+-]{1,64}")),
    "photometric": ("PhotometricInterpretation", re.compile(r"[A-Z0-9_ ]{1,16}")),
    "sex": ("PatientSex", re.compile(r"[MFO]")),
}
_READ = (
    *("SOPClassUID", "PatientAge", "BurnedInAnnotation"),
    *(*_NAMES, *_NUMBERS, *_PLACES, *_UIDS),
    *(keyword for keyword, _ in _KEPT.values()),
)
# Shorter values occur inside words that name nobody.
_TELLING = 4


@dataclass(frozen=True)
class _Film:
    """A film whose header was read; `file` is for the operator's eyes, `joins` and `telling` for none."""

    file: str
    path: Path
    size: int
    joins: Mapping[str, Sequence[str]]
    telling: frozenset[str]
    patient: str
    tag: str
    burned_in: str
    attributes: Mapping[str, str]


@contextmanager
def open_dicom(
    path: Path,
    *,
    key: str,
    labels: Path | None = None,
    columns: Sequence[str] = (),
    tag: str | None = None,
    limits: Limits = Limits(),  # noqa: B008 (frozen)
    burned_in: bool = False,
) -> Iterator[Source]:
    """Opens a folder of DICOM files, however deep, with or without suffix; DICOMDIR is passed over.

    Labels come from a table (`labels`, with `columns` as `read_labels` takes them), else from an element of each file
    (`tag`: a keyword, a number or an owner's private element, as `text_of` takes them), else from class folders. `key`
    makes the pseudonyms: the same key gives the same person the same subject. Films that declare burned-in annotation
    are refused unless `burned_in`.

    Raises: BadOverride for a key or columns that cannot serve, BadSource for labels that are missing, faulty or name
    somebody, BadImage 415 without the packages that read DICOM.
    """
    if not key:
        raise BadOverride("cannot open a DICOM tree", [Fault("no key for pseudonyms", "key", "a secret text")])
    reader()
    if tag is not None:
        check_tag(tag)
    table = read_labels(labels, columns) if labels else None
    refused: list[tuple[str, str]] = []

    def unreadable(error: OSError) -> None:
        refused.append((str(error.filename), error.strerror or str(error)))

    files = {file: found for file, found in walk(path, unreadable) if _concerns(file, found, labels)}
    films = list(_films(files, tag if table is None else None, limits, refused, burned_in=burned_in))
    notes = list(_notes(films))
    said = _said(str(path), films, table, tag, refused, notes)
    items = [_item(film, said[film.file], key, limits) for film in films if film.file in said]
    yield Source(
        len(items),
        iter(items),
        refused,
        notes,
        subjects_known=True,
        labels=frozenset(item.label for item in items),
        readers=_READERS,
        nameless=True,
    )


def pseudonym(key: str, name: str) -> str:
    """The name under which somebody goes on: 32 hex digits of HMAC-SHA256, as captured films bear it too."""
    return hmac.new(key.encode(), name.encode(), hashlib.sha256).hexdigest()[:32]


def _concerns(file: str, path: Path, labels: Path | None) -> bool:
    parts = PurePosixPath(file).parts
    apart = labels is not None and labels.exists() and path.exists() and path.samefile(labels)
    return not (any(map(is_clutter, parts)) or parts[-1].upper() == _DIRECTORY or apart)


def _films(
    files: Mapping[str, Path], tag: str | None, limits: Limits, refused: list[tuple[str, str]], *, burned_in: bool
) -> Iterator[_Film]:
    """The headers of the files that hold a film; everything else goes to `refused`, with its reason."""
    names = paths_of(files)
    seen: dict[str, str] = {}
    for file, path in files.items():
        try:
            film = _film(file, path, names[file], tag, limits)
        except OSError as error:
            refused.append((file, error.strerror or str(error)))
            continue
        except BadImage as error:
            refused.append((file, "; ".join(map(str, error.faults)) or error.message))
            continue
        same = seen.setdefault((film.joins["SOPInstanceUID"] or [file])[0], file)
        if same != file:
            refused.append((file, f"the same SOP instance as {same}"))
        elif film.burned_in == "YES" and not burned_in:
            refused.append((file, "declares burned-in annotation, which may name somebody"))
        else:
            yield film


def _film(file: str, path: Path, names: Sequence[str], tag: str | None, limits: Limits) -> _Film:
    """Reads one header. Raises: OSError, BadImage."""
    size = path.stat().st_size
    if size > limits.max_bytes:
        fault = Fault("the file is too large", "", f"at most {limits.max_bytes:,} bytes", f"{size:,} bytes")
        raise BadImage("the image is over a limit", [fault], status=413)
    with path.open("rb") as raw:
        head = raw.read(132)
        raw.seek(0)
        whole = raw if is_dicom(head) else BytesIO(marked(raw.read()))
        # A private element is found by its owner's block, which no list of wanted elements can name.
        wanted = None if "," in (tag or "") else [*_READ, *filter(None, [(tag or "").split(".")[0]])]
        elements = film_elements(whole, limits, tags=wanted)
        values = {keyword: text_of(elements, keyword) for keyword in _READ}
        told = text_of(elements, tag) if tag else ""
    return _Film(
        file=file,
        path=path,
        size=size,
        joins={**{join: [values[join]] * bool(values[join]) for join in _JOINED}, "path": names},
        telling=_telling(values),
        patient=values["PatientID"] or values["StudyInstanceUID"] or values["SOPInstanceUID"] or file,
        tag=told,
        burned_in=values["BurnedInAnnotation"].upper(),
        attributes=_attributes(values),
    )


def _telling(values: Mapping[str, str]) -> frozenset[str]:
    """What names the person, in small letters: numbers whole, names also part by part."""
    parts = [values[keyword] for keyword in (*_NUMBERS, *_PLACES, *_UIDS, *_NAMES)]
    parts += [part for keyword in _NAMES for part in re.split(r"[\^=\\\s]+", values[keyword])]
    return frozenset(part.lower() for part in parts if len(part) >= _TELLING)


def _attributes(values: Mapping[str, str]) -> dict[str, str]:
    kept = {name: values[keyword] for name, (keyword, form) in _KEPT.items() if form.fullmatch(values[keyword])}
    if any(part in kept.get("model", "").lower() for part in _telling(values)):
        del kept["model"]
    age = _decade(values)
    return {**kept, "age": age} if age else kept


def _decade(values: Mapping[str, str]) -> str:
    """The age group in decades, above 89 in one; "" where the file does not say."""
    found = re.fullmatch(r"(\d{1,3})([YMWD]?)", values["PatientAge"].upper())
    years = int(found[1]) // {"Y": 1, "": 1, "M": 12, "W": 52, "D": 365}[found[2]] if found else -1
    born, taken = values["PatientBirthDate"], values["StudyDate"]
    if not found and re.fullmatch(r"\d{8}", born) and re.fullmatch(r"\d{8}", taken):
        years = (int(taken) - int(born)) // 10_000
    if not 0 <= years <= 130:
        return ""
    return "90+" if years >= 90 else f"{years // 10 * 10}-{years // 10 * 10 + 9}"


def _said(
    source: str,
    films: Sequence[_Film],
    table: LabelTable | None,
    tag: str | None,
    refused: list[tuple[str, str]],
    notes: list[str],
) -> dict[str, Said]:
    """What is known of each film that has a label; the others are refused. Raises: BadSource."""
    if table is not None:
        said = {film.file: found for film in films if (found := table.of(film.joins))}
        notes += table.notes()
        lacking = "no row of the label table belongs to it"
    elif tag is not None:
        said = {film.file: Said(film.tag) for film in films if film.tag}
        lacking = f"has no {tag} to be its label"
    else:
        layout = place(film.file for film in films)
        said = {file: Said(label, split) for file, (split, label) in layout.places.items()}
        lacking = "lies outside the class folders"
    refused += [(film.file, lacking) for film in films if film.file not in said]
    if table is None:
        _check_nobody(source, [(film, said[film.file].label) for film in films if film.file in said], tag)
    return said


def _check_nobody(source: str, labelled: Sequence[tuple[_Film, str]], tag: str | None) -> None:
    """Raises BadSource for labels that name somebody, and for folders of one patient each, which are no classes."""
    faults: list[Fault] = []
    then = "give a table of labels, or another element"
    patients: dict[str, set[str]] = defaultdict(set)
    for film, label in labelled:
        patients[label].add(film.patient)
        if any(part in label.lower() for part in film.telling):
            where = f"the label of {film.file}"
            faults.append(Fault("a label names a person, a study or a place", where, "the name of a class", next=then))
    if tag is None and len(patients) > 1 and not faults:
        counts = Counter(label for _, label in labelled)
        faults = [
            Fault("the folder holds films of one patient only", label, "class folders", f"{counts[label]} films", then)
            for label, whose in sorted(patients.items())
            if len(whose) == 1
        ]
    if faults:
        raise bad_source(source, *faults)


def _notes(films: Sequence[_Film]) -> Iterator[str]:
    nameless = sum(not film.joins["PatientID"] for film in films)
    if nameless:
        yield f"{nameless} of {len(films)} films have no PatientID: each study of them is its own subject"
    silent = sum(film.burned_in != "NO" for film in films)
    if silent:
        yield f"{silent} of {len(films)} films do not declare that nothing is burned into their pixels: look at them"


def _item(film: _Film, said: Said, key: str, limits: Limits) -> Item:
    subject = pseudonym(key, film.patient)
    name = f"{subject}/{pseudonym(key, (film.joins['SOPInstanceUID'] or [film.file])[0])}.png"
    attributes = {**film.attributes, **dict(said.attributes)}
    return Item(
        name, said.label, said.split, film.size, partial(_anonymous, film.path, limits), subject, attributes, film.file
    )


def _anonymous(path: Path, limits: Limits) -> bytes:
    """The film's windowed pixels as a PNG that holds nothing else. Raises: OSError, BadImage."""
    return stored_png(decode(marked(path.read_bytes()), limits))
