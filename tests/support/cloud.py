"""Real object stores on this machine: moto speaks S3, gcp-storage-emulator speaks GCS; each its own process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import fsspec

_S3 = "from moto.server import main; import sys; main(['-H', '127.0.0.1', '-p', sys.argv[1]])"
_GCS = (
    "from gcp_storage_emulator.server import create_server; import sys; "
    "create_server('127.0.0.1', int(sys.argv[1]), in_memory=True).run()"
)


@dataclass(frozen=True)
class Cloud:
    """A store that answers: its protocol, its endpoint, and the variables that lead a client there."""

    protocol: str
    endpoint: str
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes]

    @contextmanager
    def reached(self) -> Iterator[None]:
        """This process's environment leads to the store until the block ends."""
        with patch.dict(os.environ, self.environment):
            fsspec.filesystem(self.protocol).clear_instance_cache()
            yield
        fsspec.get_filesystem_class(self.protocol).clear_instance_cache()

    def make_bucket(self, name: str) -> str:
        """Makes a bucket; its address."""
        with self.reached():
            fsspec.filesystem(self.protocol, skip_instance_cache=True).mkdir(name)
        return f"{self.protocol}://{name}"

    def put(self, address: str, files: Mapping[str, bytes | Path]) -> None:
        """Writes files below an address."""
        with self.reached():
            store, root = fsspec.core.url_to_fs(address, skip_instance_cache=True)
            for name, data in files.items():
                store.pipe_file(f"{root}/{name}", data if isinstance(data, bytes) else data.read_bytes())

    def stop(self) -> None:
        """Ends the store's process, as when the connection is lost."""
        self.process.kill()
        self.process.wait(10)


@contextmanager
def s3_server() -> Iterator[Cloud]:
    """An S3 store without buckets on a free loopback port, until the block ends."""
    port = _free_port()
    endpoint = f"http://127.0.0.1:{port}"
    environment = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    yield from _served("s3", _S3, port, endpoint, environment)


@contextmanager
def gcs_server() -> Iterator[Cloud]:
    """A GCS store without buckets on a free loopback port, until the block ends."""
    port = _free_port()
    endpoint = f"http://127.0.0.1:{port}"
    environment = {"STORAGE_EMULATOR_HOST": endpoint, "GOOGLE_CLOUD_PROJECT": "testing", "NO_GCE_CHECK": "true"}
    yield from _served("gs", _GCS, port, endpoint, environment)


def _served(protocol: str, program: str, port: int, endpoint: str, environment: Mapping[str, str]) -> Iterator[Cloud]:
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    cloud = Cloud(protocol, endpoint, environment, process)
    try:
        _wait(port, process)
        yield cloud
    finally:
        if process.poll() is None:
            cloud.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(port: int, process: subprocess.Popen[bytes], limit_s: float = 60.0) -> None:
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        assert process.poll() is None, "the store ended before it listened"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"nothing listens on port {port} after {limit_s:g} s")
