"""Commands as they are typed, run in this process: what they printed, and how they ended."""

from __future__ import annotations

import io
import json
import os
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rounds.faces.cli.app import run


@dataclass(frozen=True)
class Said:
    """What a command left behind: its exit code, stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object that stdout must hold, and nothing beside it."""
        assert self.out.count("\n") == 1, self.out + self.err
        answer: dict[str, Any] = json.loads(self.out)
        assert isinstance(answer, dict)
        return answer

    @property
    def message(self) -> str:
        """The message of the error that was answered as JSON."""
        return str(self.json["error"]["message"])


def rounds(home: Path, *arguments: str | Path) -> Said:
    """Run `rounds --home HOME ARGUMENTS...` in this process; the environment is afterwards as it was."""
    out, err, before = io.StringIO(), io.StringIO(), dict(os.environ)
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            run(["--home", str(home), *map(str, arguments)])
    finally:
        os.environ.clear()
        os.environ.update(before)
    return Said(int(ended.value.code or 0), out.getvalue(), err.getvalue())
