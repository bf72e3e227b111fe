"""Bundles handed on in the formats of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rounds.core.errors import CallerFault, Fault
from rounds.core.ids import write_whole
from rounds.core.ports import Ports
from rounds.export.bento import service_files
from rounds.loop import exchange, measuring

BUNDLE = "bundle"


def export_bento(ports: Ports, ref: str, out: Path) -> dict[str, Any]:
    """Write a bundle as a BentoML project into an empty folder, or over one that was written so before.

    BentoML itself is needed only to serve it. Raises NotWritable, and CallerFault for a folder with other files.
    """
    bundle = measuring.open_bundle(ports, ref)
    files = service_files(bundle)
    strangers = sorted({file.name for file in out.iterdir()} - {*files, BUNDLE}) if out.is_dir() else []
    if strangers or out.is_file():
        got = ", ".join(strangers[:5]) or "a file"
        fault = Fault("other files are there", str(out), "an empty folder, or none", got, "name another: --out DIR")
        raise CallerFault("the service cannot be written", [fault])
    exchange.give_bundle(bundle, out / BUNDLE)
    for name, text in files.items():
        write_whole(out / name, text.encode())
    return {"bundle": bundle.digest, "path": str(out), "serve": f"bentoml serve service:Rounds --working-dir {out}"}
