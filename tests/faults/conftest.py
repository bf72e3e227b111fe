"""What fault tests share: a server that runs, and the figures that are printed at the end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.support.postgres import postgres_server as postgres_server

FIGURES: list[tuple[str, int, int, int, int]] = []
Note = Callable[..., None]


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Note:
    """Take down a test's figures: requests, failures, lost answers, mixed answers."""

    def note(requests: int, failures: int = 0, lost: int = 0, mixed: int = 0) -> None:
        FIGURES.append((request.node.name, requests, failures, lost, mixed))

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures as a table."""
    if FIGURES:
        terminalreporter.section("figures")
        terminalreporter.line(f"{'requests':>9} {'failures':>9} {'lost':>6} {'mixed':>6}  test")
        for name, requests, failures, lost, mixed in FIGURES:
            terminalreporter.line(f"{requests:>9} {failures:>9} {lost:>6} {mixed:>6}  {name}")
