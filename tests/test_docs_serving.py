"""What the guide to serving says to type does what it says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.bundles import tiny_bundle
from tests.support.tracking import free_port
from tests.support.typed import ROOT, blocks, desk
from tests.support.workspace import films_as_png, promote

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_the_guide_to_serving_is_typeable(tmp_path: Path) -> None:
    place = tmp_path / "desk"
    place.mkdir()
    promote(place / ".rounds")
    tiny_bundle(tmp_path, bias=0.5).path.rename(place / "other")
    (place / "film.png").write_bytes(films_as_png(1)[0])
    port = str(free_port())
    with desk(place, {"8000": port}) as at:
        lines = [line for block in blocks("docs/serving.md") for line in block]
        said = at.type_all(lines)
        (script,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/serving.md").read_text(), re.DOTALL)
        program = [sys.executable, "-c", script.replace("8000", port)]
        told = subprocess.run(program, cwd=place, capture_output=True, text=True, check=True).stdout
    told_by = [text for line, text in said.items() if "curl" in line and " -o " not in line]
    answers = [json.loads(text[text.index("{") : text.rindex("}") + 1]) for text in told_by]
    one, two, batch, labelled, models, findings = answers
    assert one["reference"] == "acc-17"
    assert len(two["predictions"]) == 2
    assert len(batch["predictions"]) == 1
    assert labelled == {"accepted": 1, "refused": []}
    assert models["champion"] == "v1"
    assert not any(finding["alarm"] for finding in findings["findings"])
    assert "shadow: v2" in said["rounds shadow other"]
    assert "nothing stands beside it" in said["rounds shadow --off"]
    assert told.startswith(one["class"])
