"""Look the locked packages up in the database of known vulnerabilities: `make audit-deps`.

    python deploy/audit.py requirements.txt

0 where none is known, 4 where one is (pip-audit names it), 3 where no database could be reached: that nothing was found
and that nothing was asked are not the same.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def main(lock: Path) -> int:
    """Ask for each pinned package and print what is known."""
    # a pin for another system than this one is looked up too: what is audited is the lock, not this machine
    rows = {line.partition(";")[0].strip() for line in lock.read_text().splitlines() if "==" in line}
    pins = list({row.partition("==")[0]: row for row in sorted(rows)}.values())
    # the first alone: a database that is not there lets every question run into its time limit
    answered, why = asked(pins[:1])
    if answered and len(pins) > 1:
        answered, why = asked(pins)
    if not answered:
        print(f"NOT AUDITED: no database of vulnerabilities answers from here ({why})", file=sys.stderr)
        print("next: run it where one is reached; the bill of materials (make sbom) can be audited there too")
        return 3
    known = [(package, hole) for package in answered for hole in package["vulns"]]
    for package, hole in known:
        mended = ", ".join(hole["fix_versions"]) or "nothing yet"
        print(f"{package['name']} {package['version']}: {hole['id']}, mended in {mended}")
    print(f"{lock}: {len(answered)} of {len(pins)} packages are in the database, {len(known)} known vulnerabilities")
    return 4 if known else 0


def asked(pins: list[str]) -> tuple[list[dict[str, Any]], str]:
    """What the database says of the packages that it knows; where it knows none, why."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "pins.txt")
        file.write_text("\n".join(pins) + "\n")
        command = [sys.executable, "-m", "pip_audit", "-r", str(file), "--no-deps", "--disable-pip", "-f", "json"]
        done = subprocess.run(
            [*command, "--progress-spinner", "off", "--timeout", "10"], capture_output=True, text=True
        )
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return [], (done.stderr.strip().splitlines() or ["no word"])[-1][:160]
    why = next((package["skip_reason"] for package in found if "skip_reason" in package), "")
    return [package for package in found if "vulns" in package], why


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
