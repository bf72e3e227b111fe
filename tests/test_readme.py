"""What the README says to type does what it says: its five commands, its curls, its training and its tables."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.support.server import server
from tests.support.typed import ROOT, Desk, blocks

from rounds.imaging.fit import encode_png
from rounds.imaging.phantom import draw

README = (ROOT / "README.md").read_text()
BLOCKS = [[line.text for line in block] for block in blocks("README.md")]
LINES = [line for block in BLOCKS for line in block]
FILMS = 1200


def commands(word: str) -> list[str]:
    """The lines of the README's shell blocks that begin so."""
    return [line for line in LINES if line.startswith(word)]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the README's reader has it: films/normal, films/pneumonia, and one film.png."""
    place = tmp_path_factory.mktemp("desk")
    names = {"normal": "normal", "opacity": "pneumonia"}
    for film in draw(FILMS, seed=5):
        folder = place / "films" / names[film.label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{film.name.replace('/', '-')}.png").write_bytes(encode_png(film.pixels))
    shutil.copy(next((place / "films" / "normal").iterdir()), place / "film.png")
    return place


def typed(line: str, desk: Path) -> subprocess.CompletedProcess[str]:
    """Type a line of the README at the desk; the workspace is its default, ./.rounds."""
    return Desk(desk).type(line, limit_s=240)


@pytest.fixture(scope="module")
def five(desk: Path) -> dict[str, subprocess.CompletedProcess[str]]:
    """The README's commands up to the server, typed in their order; the last of the five is the server itself."""
    lines = next(block for block in BLOCKS if "data prepare films" in block[0])
    assert len(lines) == 5
    assert lines[-1] == ".venv/bin/rounds serve"
    return {line: typed(line, desk) for line in lines[:-1]}


def test_five_commands_lead_from_a_folder_to_a_champion(five: dict[str, subprocess.CompletedProcess[str]]) -> None:
    assert {line: done.stderr for line, done in five.items() if done.returncode} == {}
    assert "v1" in list(five.values())[-1].stdout


@pytest.mark.usefixtures("five")
def test_the_curls_are_answered_and_the_watch_looks(desk: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl here: install curl")
    ask, label = commands("curl")
    with server(desk / ".rounds") as served:
        answer = json.loads(typed(ask.replace("localhost:8000", f"127.0.0.1:{served.port}"), desk).stdout)
        assert {"id", "class", "probabilities", "set", "refer", "reason", "version", "bundle"} <= set(answer)
        told = label.replace("localhost:8000", f"127.0.0.1:{served.port}").replace("p_...", answer["id"])
        assert json.loads(typed(told, desk).stdout) == {"accepted": 1, "refused": []}
    (watch,) = [line for line in commands(".venv/bin/rounds") if "watch" in line]
    done = typed(watch, desk)
    assert (done.returncode, done.stdout.split(":")[0]) == (0, "hold")


@pytest.mark.usefixtures("five")
def test_the_training_line_trains_and_its_run_is_on_mlflow(desk: Path) -> None:
    (line,) = [line for line in commands(".venv/bin/rounds train") if "seed=3" in line]
    done = typed(line, desk)
    assert done.returncode == 0, done.stderr
    assert "seed 3" in done.stdout
    (look,) = commands(".venv/bin/mlflow")
    from mlflow.tracking import MlflowClient

    uri = look.split()[-1].replace("sqlite:///", f"sqlite:///{desk}/")
    client = MlflowClient(uri)
    runs = client.search_runs([found.experiment_id for found in client.search_experiments()])
    assert len(runs) == 2
    assert {run.info.status for run in runs} == {"FINISHED"}


@pytest.mark.usefixtures("five")
def test_every_command_that_the_table_names_is_one(desk: Path) -> None:
    named = set(re.findall(r"`rounds ([a-z-]+)", README))
    assert named >= {
        "evaluate",
        "models",
        "history",
        "trace",
        "audit",
        "watch",
        "policy",
        "costs",
        "train",
        "serve",
    } - {"serve"}
    for name in sorted(named):
        assert typed(f".venv/bin/rounds {name} --help", desk).returncode == 0, name
    for line in ("models", "history", "audit", "policy", "policy gate.margin=0.02", "costs"):
        assert typed(f".venv/bin/rounds {line}", desk).returncode == 0, line


def test_the_make_words_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    words = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE))
    assert words >= {"demo", "test", "check", "simulate"}
    assert {word for word in words if f"\n{word}:" not in makefile} == set()


def test_every_folder_of_the_table_is_there_and_every_room_is_in_the_table() -> None:
    table = README.split("## The folders")[1].split("##")[0]
    rooms = {path.name for path in (ROOT / "src" / "rounds").iterdir() if (path / "__init__.py").is_file()}
    named = {word.split("/")[-1] for word in re.findall(r"`([a-z/]+)`", table)}
    assert rooms <= named
    assert {"tests", "docs"} <= named
