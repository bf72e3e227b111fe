"""The container images of this project, started by podman as they are meant to be started."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import httpx
import pytest
from tests.support.tracking import free_port
from tests.support.typed import ROOT

USER = 10001
# nothing that a container need not have
LOCKED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "all", "--security-opt", "no-new-privileges")


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "deploy" / "docker" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Podman:
    """Podman, set up for this machine."""

    environment: Mapping[str, str]

    def __call__(self, *words: str, check: bool = True, limit_s: float = 900) -> subprocess.CompletedProcess[str]:
        """Run one of its commands; both streams as text."""
        done = subprocess.run(
            ["podman", *words], env=dict(self.environment), capture_output=True, text=True, timeout=limit_s
        )
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done

    def rounds(self, image: str, home: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of `rounds` in a container without a network, the workspace mounted."""
        network = ("--network", "none", "--no-healthcheck", "-e", "OMP_NUM_THREADS=1")
        return self("run", "--rm", *LOCKED, *network, "-v", f"{home}:/workspace", image, *words, check=check)

    @contextmanager
    def serving(self, image: str, home: Path, *options: str) -> Iterator[tuple[str, str]]:
        """A container that serves the workspace on a free loopback port: its name and its address."""
        port = free_port()
        name = f"rounds-test-{os.getpid()}-{port}"
        # the machine's own network: others may be missing, and the server listens on loopback alone
        given = ("--network", "host", "-e", f"PORT={port}", "-e", "HOST=127.0.0.1", "-e", "OMP_NUM_THREADS=1", *options)
        # its check is asked by hand: podman leaves the asking to systemd, which may not be there
        self("run", "--detach", "--no-healthcheck", "--name", name, *LOCKED, *given, "-v", f"{home}:/workspace", image)
        try:
            self._await(name, f"http://127.0.0.1:{port}")
            yield name, f"http://127.0.0.1:{port}"
        finally:
            self("rm", "--force", "--time", "20", name, check=False)

    def _await(self, name: str, url: str) -> None:
        until = time.monotonic() + 60
        while True:
            try:
                if httpx.get(f"{url}/health/ready", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            logs = self("logs", name, check=False)
            assert time.monotonic() < until, logs.stdout + logs.stderr
            time.sleep(0.1)


@pytest.fixture(scope="session")
def podman() -> Podman:
    """Podman on this machine; skipped, with the packages that are missing, where it is not installed."""
    if missing := [name for name in ("buildah", "podman", "runc") if shutil.which(name) is None]:
        pytest.skip(f"no {', '.join(missing)} here: apt-get install buildah podman runc mmdebstrap")
    return Podman(_script("build").surroundings())


@pytest.fixture(scope="session")
def api_image(podman: Podman) -> str:
    """The name of the image that answers."""
    return _found(podman, "rounds-api")


@pytest.fixture(scope="session")
def training_image(podman: Podman) -> str:
    """The name of the image that trains."""
    return _found(podman, "rounds-training")


def _found(podman: Podman, name: str) -> str:
    image = f"localhost/{name}:{os.environ.get('TAG', 'latest')}"
    if podman("image", "exists", image, check=False).returncode:
        assert "ROUNDS_IMAGES" not in os.environ, f"no image {image} here: make images"
        pytest.skip(f"no image {image} here: make images")
    return image
