"""An object store that is away, refuses, hangs or has no such bucket is said quickly, and by name."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import fsspec
import pytest
from tests.support.cloud import Cloud, gcs_server, s3_server

from rounds.core.errors import BadOverride, DamagedData, StoreAway
from rounds.core.ids import digest
from rounds.stores.blobs_remote import RemoteBlobs

SERVERS = {"s3": s3_server, "gs": gcs_server}


@pytest.fixture(params=["s3", "gs"])
def cloud(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    with SERVERS[request.param]() as server, server.reached():
        yield server


def test_a_store_that_goes_away_is_said_in_seconds_by_every_method(cloud: Cloud) -> None:
    blobs = RemoteBlobs(cloud.make_bucket("films"), answer_s=4.0)
    name = blobs.put(b"film")
    cloud.stop()
    for ask in (
        lambda: blobs.put(b"other"),
        lambda: blobs.get(name),
        lambda: blobs.has(name),
        lambda: blobs.delete(name),
    ):
        begun = time.monotonic()
        with pytest.raises(StoreAway, match=rf"{cloud.protocol}://films does not answer\n.*the store does not answer"):
            ask()
        assert time.monotonic() - begun < 8


def test_a_bucket_that_is_absent_is_named_and_not_taken_for_an_empty_one(cloud: Cloud) -> None:
    blobs = RemoteBlobs(f"{cloud.protocol}://nowhere/kept")
    for ask in (lambda: blobs.put(b"film"), lambda: blobs.get("0" * 64), lambda: list(blobs)):
        with pytest.raises(StoreAway, match="no such bucket"):
            ask()


def test_changed_bytes_are_refused_by_name(cloud: Cloud) -> None:
    address = cloud.make_bucket("films")
    blobs = RemoteBlobs(address)
    name = blobs.put(b"film")
    cloud.put(address, {f"{name[:2]}/{name[2:4]}/{name}": b"fiim"})
    with pytest.raises(DamagedData, match=rf"blob {name[:12]} is damaged\n.*the bytes have changed; expected sha256"):
        blobs.get(name)


def test_other_files_below_the_address_are_no_blobs(cloud: Cloud) -> None:
    address = cloud.make_bucket("films")
    blobs = RemoteBlobs(address)
    blobs.put(b"film")
    cloud.put(address, {"notes.txt": b"read me"})
    assert list(blobs) == [digest(b"film")]


@contextmanager
def silent() -> Iterator[str]:
    """Something that takes connections and never answers."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen(16)
        yield f"http://127.0.0.1:{one.getsockname()[1]}"


def test_a_store_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs", reason="no client here: pip install 'rounds[cloud]'")
    with silent() as endpoint:
        for name, value in {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
        }.items():
            monkeypatch.setenv(name, value)
        blobs, begun = RemoteBlobs("s3://films/kept", answer_s=1.0), time.monotonic()
        with pytest.raises(StoreAway, match="the store does not answer"):
            blobs.put(b"film")
        assert time.monotonic() - begun < 5
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_an_address_of_no_known_kind_is_refused() -> None:
    with pytest.raises(BadOverride, match=r"blobs cannot be kept there\n.*no such kind of address; expected a folder"):
        RemoteBlobs("nonsense://films")
