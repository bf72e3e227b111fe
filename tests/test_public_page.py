"""The public page: its names, what they cost to import, and what the command line imports before it works."""

from __future__ import annotations

import ast
import inspect
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import rounds

ROOT = Path(rounds.__file__).parent
ROOMS = {path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()}
HEAVY = (
    "cv2", "fastapi", "hydra", "lightning", "mlflow", "numpy", "onnxruntime", "pandas", "PIL", "plotly", "pyarrow",
    "pydantic", "rich", "scipy", "sqlalchemy", "torch",
)  # fmt: skip


def imported(program: str) -> set[str]:
    """The top-level modules that a fresh process has imported when the program ends."""
    ending = "\nimport json, sys\nprint(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", program + ending], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_list_of_names_is_sorted_whole_and_what_the_page_gives() -> None:
    assert rounds.__all__ == sorted(set(rounds.__all__))
    assert set(rounds.__all__) <= set(dir(rounds))
    for name in rounds.__all__:
        found = getattr(rounds, name)
        if name != "__version__":
            assert inspect.isclass(found) or inspect.isfunction(found), name
            assert (found.__name__, found.__doc__ is not None) == (name, True)


def test_type_checkers_read_the_same_names_from_the_same_places() -> None:
    (block,) = (node for node in ast.parse((ROOT / "__init__.py").read_text()).body if isinstance(node, ast.If))
    told = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    given = {name: f"rounds.{place}.{name}" for name, place in rounds._PLACE.items()}
    assert told == given


def test_no_public_name_is_that_of_a_room() -> None:
    assert {"core", "loop", "train"} <= ROOMS
    assert not ROOMS & set(rounds.__all__)


def test_an_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'rounds' has no attribute 'nosuch'"):
        rounds.nosuch  # noqa: B018


def test_importing_rounds_imports_nothing_of_weight() -> None:
    assert not imported("import rounds; rounds.__all__; dir(rounds)") & {*HEAVY, "typer"}


def test_what_serves_can_be_used_without_what_trains() -> None:
    found = imported("import rounds; rounds.Predictor, rounds.open_ports, rounds.Settings, rounds.decide")
    assert not found & {"torch", "lightning", "mlflow", "pandas", "hydra", "plotly", "matplotlib"}


@pytest.mark.parametrize("given", [["--help"], ["data", "prepare", "--help"], ["train", "--help"], []])
def test_help_imports_nothing_of_weight(given: list[str]) -> None:
    program = (
        "from rounds.faces.cli.app import run\n"
        f"try: run({given!r})\n"
        "except SystemExit: pass"
    )  # fmt: skip
    # below the first level typer itself reads the values with pydantic
    assert not imported(program) & set(HEAVY) - ({"pydantic"} if given != ["--help"] else set())


def test_help_costs_less_than_three_tenths_of_a_second() -> None:
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "rounds", "--help"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=_without_coverage())
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.stdout.startswith("Usage: rounds [OPTIONS] COMMAND [ARGS]...")
    # CPU seconds, the least of three: other tests run beside this one
    assert min(seconds) < 0.3


def _without_coverage() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("COV")}
