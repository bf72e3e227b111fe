"""What the checks of a data set say: findings by severity, each with all its films and pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rounds.data.copies import Copies
from rounds.data.take import Taken

# A leak stops training; a fault is wrong and should be mended; a note is worth a look.
SEVERITIES = ("leak", "fault", "note")


@dataclass(frozen=True)
class Finding:
    """One kind of thing that was found: a sentence, and every film or pair of films that it is about, whole.

    A film is {file, split, label, ...}, a pair {files, splits, labels, how, difference: gray levels or None}.
    """

    severity: str
    kind: str
    what: str
    films: tuple[Mapping[str, Any], ...] = ()
    pairs: tuple[Mapping[str, Any], ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)

    def public(self) -> dict[str, Any]:
        return {
            "severity": self.severity,
            "kind": self.kind,
            "what": self.what,
            "films": [dict(film) for film in self.films],
            "pairs": [dict(pair) for pair in self.pairs],
            "values": dict(self.values),
        }


@dataclass(frozen=True)
class Survey:
    """All that the checks found in one data set; `shifts` compares each split with train, measure by measure, and
    `skipped` names checks that could not be made, with the reason."""

    name: str
    digest: str
    images: int
    findings: tuple[Finding, ...]
    shifts: tuple[Mapping[str, Any], ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def leaks(self) -> tuple[tuple[str, str], ...]:
        """The pairs of films that stop training."""
        pairs = [pair["files"] for finding in self.findings if finding.severity == "leak" for pair in finding.pairs]
        return tuple((one, other) for one, other in pairs)

    def counts(self) -> dict[str, int]:
        """Findings by severity."""
        return {kind: sum(finding.severity == kind for finding in self.findings) for kind in SEVERITIES}

    def public(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "digest": self.digest,
            "images": self.images,
            "ok": not (self.counts()["leak"] or self.counts()["fault"]),
            "counts": self.counts(),
            "findings": [finding.public() for finding in self.findings],
            "leaks": [list(pair) for pair in self.leaks],
            "shifts": [dict(row) for row in self.shifts],
            "skipped": list(self.skipped),
        }


def film_told(film: Taken, **more: Any) -> dict[str, Any]:
    """A film as a finding names it."""
    return {"file": film.name, "split": film.split, "label": film.label, **more}


def pair_told(one: Taken, other: Taken, how: str, copies: Copies) -> dict[str, Any]:
    """Two films as a finding names them."""
    low, high = sorted((one.pixels, other.pixels))
    alike = copies.compared.get((low, high))
    return {
        "files": [one.name, other.name],
        "splits": [one.split, other.split],
        "labels": [one.label, other.label],
        "how": how,
        "difference": 0.0 if low == high else alike.difference if alike else None,
    }


def several(count: int, one: str, many: str = "") -> str:
    """A count and its noun."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def by_severity(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The gravest first, else in the order in which they were made."""
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))
