"""One suite for every store of bytes: memory, files, packs of small ones, S3 and GCS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.support.cloud import Cloud, gcs_server, s3_server
from tests.support.together import together

from rounds.core.errors import UnknownId
from rounds.core.ids import digest, new_id
from rounds.core.ports import Blobs
from rounds.stores.blobs import FileBlobs
from rounds.stores.blobs_remote import RemoteBlobs
from rounds.stores.memory import MemoryBlobs
from rounds.stores.packs import PackedBlobs
from rounds.stores.rows import open_rows


@pytest.fixture(scope="module")
def clouds() -> Iterator[Callable[[str], Cloud]]:
    """The object stores, each started when it is first asked for."""
    with ExitStack() as stack:
        started: dict[str, Cloud] = {}

        def cloud(kind: str) -> Cloud:
            if kind not in started:
                started[kind] = stack.enter_context({"s3": s3_server, "gs": gcs_server}[kind]())
            return started[kind]

        yield cloud


@pytest.fixture(params=["memory", "files", "durable files", "packs", "s3", "gs"])
def blobs(
    request: pytest.FixtureRequest, tmp_path: Path, clouds: Callable[[str], Cloud], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Blobs]:
    if request.param == "memory":
        yield MemoryBlobs()
    elif request.param == "packs":
        rows = open_rows(f"sqlite:///{tmp_path / 'rows.db'}")
        yield PackedBlobs(FileBlobs(tmp_path / "blobs"), rows.database)
        rows.close()
    elif request.param in ("s3", "gs"):
        client = {"s3": "s3fs", "gs": "gcsfs"}[request.param]
        pytest.importorskip(client, reason="no client here: pip install 'rounds[cloud]'")
        monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        cloud = clouds(request.param)
        bucket = cloud.make_bucket(new_id("films-").replace("_", "-"))
        with cloud.reached():
            yield RemoteBlobs(f"{bucket}/kept/here")
    else:
        yield FileBlobs(tmp_path / "blobs", durable=request.param == "durable files")


def test_bytes_come_back_by_their_digest(blobs: Blobs) -> None:
    for data in (b"", b"film", bytes(range(256)) * 5000):
        name = blobs.put(data)
        assert name == digest(data)
        assert blobs.put(data) == name
        assert (blobs.get(name), blobs.has(name), blobs.size(name)) == (data, True, len(data))
    assert len(list(blobs)) == 3


def test_many_are_kept_and_forgotten_together(blobs: Blobs) -> None:
    films = [str(i).encode() * (1 + i * 400) for i in range(60)]
    names = list(blobs.put_many([*films, films[0]]))
    assert names == [digest(data) for data in [*films, films[0]]]
    assert list(blobs.put_many(films[:3])) == names[:3]
    assert list(blobs.put_many([])) == []
    assert [blobs.get(name) for name in names[:60]] == films
    assert [blobs.size(name) for name in names[:60]] == [len(data) for data in films]
    assert blobs.delete_many([*names[:30], "0" * 64]) == 30
    assert blobs.delete_many(names[:2]) == 0
    assert sorted(blobs) == sorted(names[30:60])
    assert [blobs.get(name) for name in names[30:60]] == films[30:]
    assert not any(blobs.has(name) for name in names[:30])


def test_bytes_that_were_kept_alone_and_among_others_are_listed_once_and_go_whole(blobs: Blobs) -> None:
    name = blobs.put(b"film")
    assert list(blobs.put_many([b"other", b"film"])) == [digest(b"other"), name]
    assert sorted(blobs) == sorted([digest(b"other"), name])
    assert blobs.delete(name)
    assert not blobs.has(name)
    assert list(blobs) == [digest(b"other")]
    alone = list(blobs.put_many([b"alone"]))
    assert sorted(blobs) == sorted([digest(b"other"), *alone])
    assert blobs.delete_many(alone) == 1
    assert list(blobs) == [digest(b"other")]


def test_an_empty_store_lists_nothing(blobs: Blobs) -> None:
    assert list(blobs) == []


def test_bytes_from_many_threads_are_kept_once_each(blobs: Blobs) -> None:
    names: list[str] = []

    def work(who: int) -> None:
        names.extend(blobs.put(str(i).encode()) for i in range(10))

    together(work, 4)
    assert len(names) == 40
    assert list(blobs) == sorted(set(names))
    assert all(digest(blobs.get(name)) == name for name in blobs)


def test_blobs_are_listed_and_forgotten(blobs: Blobs) -> None:
    names = sorted(blobs.put(data) for data in (b"a", b"b"))
    assert list(blobs) == names
    assert blobs.delete(names[0])
    assert not blobs.delete(names[0])
    assert list(blobs) == names[1:]
    assert not blobs.has(names[0])


@pytest.mark.parametrize("name", ["0" * 64, "../../etc/passwd", "", "A" * 64])
def test_bytes_that_are_not_kept_are_unknown(blobs: Blobs, name: str) -> None:
    assert not blobs.has(name)
    assert blobs.size(name) is None
    assert not blobs.delete(name)
    with pytest.raises(UnknownId, match=r"no blob '"):
        blobs.get(name)
