"""What is deployed passes its linters; the bill of materials is whole; an audit that asked nobody says so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.typed import ROOT

UNIT = (ROOT / "deploy/systemd/rounds.service").read_text()


def run(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=300)


def test_no_linter_complains() -> None:
    done = run(sys.executable, "deploy/check.py")
    print(done.stdout)
    assert done.returncode == 0, done.stdout


def test_the_unit_is_well_formed_and_exposes_little(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here: apt-get install systemd")
    copy = tmp_path / "rounds.service"
    copy.write_text(UNIT.replace("/opt/rounds/bin/rounds", sys.executable))
    done = run("systemd-analyze", "verify", copy)
    assert (done.returncode, done.stderr) == (0, "")
    said = run("systemd-analyze", "security", "--offline=true", "--no-pager", copy).stdout
    level = float(said.rsplit("service: ", 1)[1].split()[0])
    print(f"exposure {level} of 10")
    assert level < 2


def test_the_units_command_is_one_that_rounds_takes() -> None:
    line = next(line for line in UNIT.splitlines() if line.startswith("ExecStart="))
    words = line.removeprefix("ExecStart=/opt/rounds/bin/rounds ").split()
    said = run(sys.executable, "-m", "rounds", "serve", "--help").stdout
    assert words[0] == "serve"
    assert [word for word in words if word.startswith("--") and word not in said] == []


def test_the_bill_of_materials_names_what_is_locked_with_versions(tmp_path: Path) -> None:
    tool = Path(sys.executable).with_name("cyclonedx-py")
    if not tool.exists():
        pytest.skip("no cyclonedx-py here: pip install cyclonedx-bom")
    out = tmp_path / "sbom.json"
    done = run(tool, "requirements", "requirements.txt", "--pyproject", "pyproject.toml", "--of", "JSON", "-o", out)
    assert done.returncode == 0, done.stderr
    bill = json.loads(out.read_text())
    assert (bill["bomFormat"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "rounds")
    locked = {line.partition("==")[0] for line in (ROOT / "requirements.txt").read_text().splitlines()}
    parts = {part["name"].lower(): part["version"] for part in bill["components"]}
    assert locked <= set(parts)
    assert all(parts.values())


def test_an_audit_that_reaches_no_database_does_not_pass(tmp_path: Path) -> None:
    pytest.importorskip("pip_audit", reason="no pip-audit here: pip install pip-audit")
    lock = tmp_path / "lock.txt"
    lock.write_text("six==1.16.0\n")
    nowhere = {
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "",
        "HOME": str(tmp_path),
    }
    done = run(sys.executable, "deploy/audit.py", lock, **nowhere, XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 3, done.stdout + done.stderr
    assert done.stderr.startswith("NOT AUDITED: no database of vulnerabilities answers from here")
