"""What the guide to operating says to type does what it says, and names only what is there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from tests.support.typed import ROOT, blocks, desk
from tests.support.workspace import films_as_png, promote

GUIDE = "docs/operating.md"
TEXT = (ROOT / GUIDE).read_text()


@pytest.mark.slow
def test_the_guide_to_operating_is_typeable(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("no promtool here: apt-get install prometheus")
    place = tmp_path / "desk"
    promote(place / ".rounds")
    (place / "film.png").write_bytes(films_as_png(1)[0])
    (place / "deploy").symlink_to(ROOT / "deploy")
    with desk(place) as at:
        refused = at.type("exec rounds serve --host 0.0.0.0", limit_s=60)
        assert refused.returncode == 2
        assert "rounds keys add" in refused.stderr
        lines = [line for block in blocks(GUIDE) for line in block if not line.text.startswith("rounds serve")]
        said = at.type_all(lines)
    key = re.findall(r"\S{30,}", said["rounds keys add clinic --scope predict --scope label --days 365"])
    assert key
    assert not any(one in (place / ".rounds" / "keys.json").read_text() for one in key)
    assert "promoted" in said["rounds --home restored history"]


def test_every_file_and_target_that_the_guide_names_is_there() -> None:
    files = set(re.findall(r"\b(?:deploy|tests|docs)/[\w./-]*\w", TEXT))
    assert {name for name in files if not (ROOT / name).exists()} == set()
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?:^|`)make ([a-z-]+)", TEXT, re.MULTILINE))
    assert {name for name in targets if f"\n{name}:" not in makefile} == set()


def test_every_setting_of_the_guide_is_read_somewhere() -> None:
    from rounds.wiring.settings import Settings

    known = {f"ROUNDS_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"ROUNDS_[A-Z]+", TEXT)) <= known
    start = (ROOT / "deploy/docker/start.py").read_text() + (ROOT / "deploy/systemd/rounds.service").read_text()
    assert all(name in start for name in ("HOST", "PORT", "WEB_CONCURRENCY"))
