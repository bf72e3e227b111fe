"""What a run was made with: the code, the machine and the packages."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import psutil
import torch

import rounds.core

_PLACE = Path(rounds.core.__file__).parent.parent
_GIT_S = 10


def code_revision() -> str:
    """The git revision of the code in use with `+` where it was changed since, or the version of the installed
    package."""
    try:
        head, state = (_git(*words) for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", ".")))
        return head.decode().strip() + ("+" if state.strip() else "")
    except (OSError, subprocess.SubprocessError):
        return f"rounds {version('rounds')}"


def code_changes() -> bytes:
    """What was changed since that revision, as a patch; nothing where git cannot say. No remote is asked or named."""
    try:
        return _git("diff", "HEAD", "--no-color", "--no-ext-diff", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return b""


def environment() -> dict[str, Any]:
    """The host, its processors and memory in megabytes, Python, and the version of every installed package."""
    cuda = torch.cuda.is_available()
    return {
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "memory_mb": psutil.virtual_memory().total // 2**20,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [],
        "packages": _packages(),
    }


@cache
def _packages() -> dict[str, str]:
    return dict(sorted((found.name, found.version) for found in distributions()))


def _git(*words: str) -> bytes:
    return subprocess.run(["git", "-C", _PLACE, *words], capture_output=True, check=True, timeout=_GIT_S).stdout  # noqa: S607  # whichever git the user has
