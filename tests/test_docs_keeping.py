"""What the guide to keeping says to type does what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.typed import blocks, desk
from tests.support.workspace import opened, promote

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_the_guide_to_keeping_is_typeable(tmp_path: Path) -> None:
    place = tmp_path / "desk"
    place.mkdir()
    promote(place / ".rounds")
    with desk(place) as at:
        said = at.type_all([line for block in blocks("docs/keeping.md") for line in block])
    assert "0 images dropped (0 bytes), 0 kept" in said["rounds retain"]
    assert "it holds the workspace's key: keep it safe" in said["rounds backup rounds.tar"]
    assert "all verified" in said["rounds restore rounds.tar --home restored"]
    assert "the chain is whole" in said["rounds --home restored audit"]
    assert "nothing to do" in said["rounds migrate --look"]
    with opened(place / ".rounds") as one, opened(place / "restored") as other:
        assert list(one.events.read()) == list(other.events.read())
