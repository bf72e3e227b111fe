"""A workspace with a first champion, made once a test process and copied for each test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.captured import Ward, begin, model_that_sees_stripes
from tests.support.workspace import opened

# With it whom the audit draws is the same at every run.
SECRET = "the key of a test"


def _made(folder: Path, **given: object) -> Path:
    with opened(folder) as ports:
        begin(ports, **given)
    return folder


@pytest.fixture(scope="session")
def _plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _made(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="session")
def _fooled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _made(tmp_path_factory.mktemp("fooled"), model=model_that_sees_stripes())


@pytest.fixture
def ward(home: Path, _plain: Path) -> Iterator[Ward]:
    """A ward whose champion a refit of the outputs can cure."""
    shutil.copytree(_plain, home)
    with opened(home) as ports:
        yield Ward(replace(ports, secret=SECRET))


@pytest.fixture
def fooled(home: Path, _fooled: Path) -> Iterator[Ward]:
    """A ward whose champion looks at stripes, which no refit cures."""
    shutil.copytree(_fooled, home)
    with opened(home) as ports:
        yield Ward(replace(ports, secret=SECRET))
