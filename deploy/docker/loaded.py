"""Import every module of Rounds that this installation is for: a part that was taken out too many ends the build.

A module may need what is not installed here (torch, say). It may not need a part of what is.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from importlib.metadata import packages_distributions

import psycopg
import pydicom.pixels
import pylibjpeg
import s3fs

import rounds

ALSO = (psycopg, pydicom.pixels, pylibjpeg, s3fs)
# A part of OpenTelemetry comes with other packages, what sends traces is an extra.
EXTRA = {"opentelemetry.exporter"}


def main() -> int:
    """Import all, say what could not be; the number of modules that lack a part."""
    installed, loaded, lacking = set(packages_distributions()), 0, 0
    for module in pkgutil.walk_packages(rounds.__path__, "rounds."):
        if module.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(module.name)
            loaded += 1
        except ImportError as error:
            missing = (error.name or "").partition(".")[0]
            if error.name not in EXTRA and (not missing or missing in installed):
                lacking += 1
                print(f"{module.name}: {error}", file=sys.stderr)
    print(f"{loaded} modules of Rounds load, {lacking} lack a part")
    return lacking


if __name__ == "__main__":
    sys.exit(min(main(), 1))
