"""Hosts of a test's own on one machine: network namespaces with a cable between them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Host:
    """A network namespace and its address."""

    name: str
    address: str

    def words(self, *command: str | Path) -> list[str]:
        """The words that run a command there."""
        return ["ip", "netns", "exec", self.name, *map(str, command)]

    def end(self) -> None:
        """End every process that runs there."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for pid in self._pids():
                with suppress(ProcessLookupError):
                    os.kill(pid, sign)
            until = time.monotonic() + 10
            while self._pids() and time.monotonic() < until:
                time.sleep(0.1)

    def _pids(self) -> list[int]:
        return [int(pid) for pid in _ip("netns", "pids", self.name).split()]


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts that reach each other and nothing else; whatever runs there ends with the block."""
    if not shutil.which("ip"):
        pytest.skip("no ip here: apt-get install iproute2")
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    mark = f"{os.getpid():x}"
    made = Host(f"rounds-{mark}-a", "10.213.7.1"), Host(f"rounds-{mark}-b", "10.213.7.2")
    try:
        for host in made:
            if subprocess.run(["ip", "netns", "add", host.name], capture_output=True).returncode:
                pytest.skip("this kernel makes no network namespaces")
        ends = [f"ra{mark}", f"rb{mark}"]
        _ip(
            "link",
            "add",
            ends[0],
            "netns",
            made[0].name,
            "type",
            "veth",
            "peer",
            "name",
            ends[1],
            "netns",
            made[1].name,
        )
        for host, end in zip(made, ends, strict=True):
            _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", end)
            _ip("-n", host.name, "link", "set", end, "up")
            _ip("-n", host.name, "link", "set", "lo", "up")
        yield made
    finally:
        for host in made:
            if f"{host.name}" in _ip("netns", "list"):
                host.end()
                _ip("netns", "delete", host.name)


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout
