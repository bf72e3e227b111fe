"""A workspace with a champion, made as the loop makes it but for the training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.bundles import tiny_bundle, tiny_films

from rounds.core.ports import Ports
from rounds.core.records import Bundle, GateReport
from rounds.imaging.fit import encode_png
from rounds.registry import versions
from rounds.registry.catalogue import Catalogue
from rounds.wiring.serving import open_ports
from rounds.wiring.settings import Settings


@contextmanager
def opened(home: Path) -> Iterator[Ports]:
    """The ports of the workspace."""
    with open_ports(Settings(home=home)) as ports:
        yield ports


def promote(home: Path, *, spoil: Callable[[Bundle], None] = lambda _bundle: None, **given: Any) -> Bundle:
    """Make a tiny bundle (`given` goes to tiny_bundle) and promote it; `spoil` may damage it before it is promoted."""
    bundle = tiny_bundle(home / "bundles", **given)
    spoil(bundle)
    promote_bundle(home, bundle)
    return bundle


def promote_bundle(home: Path, bundle: Bundle) -> str:
    """Put a bundle in service with a gate record that let it pass; its version."""
    with opened(home) as ports:
        facts = {
            "bundle": bundle.digest,
            "path": str(_below(home, bundle.path)),
            "run": bundle.parents.run,
            "parent": None,
        }
        ports.events.append("imported", who="test", why="a test", evidence=facts | {"data": bundle.parents.data})
        version = versions.register(ports.events, bundle, why="a test", who="test")
        champion = Catalogue.of(ports.events.read()).champion
        against = champion.bundle if champion else None
        report = GateReport(bundle.digest, against, passed=True, checks=(), candidate=1, alpha=0.05)
        gate = versions.record_gate(ports.events, report, frozen="f" * 64, why="a test", who="test")
        versions.promote(ports.events, version, gate=gate.id, why="a test", who="test")
    return version.version


def films_as_png(n: int, *, size: int = 28) -> list[bytes]:
    """The first n of one fixed series of films, as PNG bytes."""
    return [encode_png(film) for film in tiny_films(n, size=size, seed=7)]


def _below(home: Path, path: Path) -> Path:
    """The path as the log names it: a workspace may be mounted elsewhere."""
    return path.relative_to(home) if path.is_relative_to(home) else path
