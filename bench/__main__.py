"""`make bench`: every budget beside its floor, from one run, as a table and as JSON; exit code 1 below a floor.

python -m bench [--out build/bench.json] [NAMES...]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

MODULES = ("loading", "training", "overhead", "int8", "scoring")


def met(row: dict[str, Any]) -> bool | None:
    """Whether a row keeps to its floor (a ceiling where less is better); None where it has none."""
    if row["floor"] is None:
        return None
    return bool(row["value"] >= row["floor"] if row["higher_is_better"] else row["value"] <= row["floor"])


def main() -> int:
    """Measure, print, write; 1 where a budget is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=MODULES, help=", ".join(MODULES))
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"))
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in given.names:
        begun = time.perf_counter()
        measured = importlib.import_module(f"bench.{name}").measure()
        rows += [{"bench": name, **row, "met": met(row)} for row in measured]
        for row in rows[-len(measured) :]:
            print(line(row), flush=True)
        print(f"{name} took {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    machine = {
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    missed = [row["name"] for row in rows if row["met"] is False]
    print(f"{len(rows)} rows in {given.out}; " + (f"missed: {', '.join(missed)}" if missed else "no budget is missed"))
    return 1 if missed else 0


def line(row: dict[str, Any]) -> str:
    """One row as people read it."""
    sign = ">=" if row["higher_is_better"] else "<="
    floor = "" if row["floor"] is None else f"{sign} {row['floor']:g}"
    verdict = {True: "met", False: "MISSED", None: ""}[row["met"]]
    return f"{row['name']:<58} {row['value']:>10.4g} {row['unit']:<14} {floor:<10} {verdict:<7} {row['detail']}"


if __name__ == "__main__":
    sys.exit(main())
