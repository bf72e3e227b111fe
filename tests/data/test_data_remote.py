"""Sources behind addresses, read from real S3 and GCS servers on this machine: the same films, and what is told when
the store is away."""

from __future__ import annotations

import http.server
import io
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import fsspec
import numpy as np
import pytest
from tests.support.cloud import Cloud, gcs_server, s3_server

from rounds.core.errors import BadSource, StoreAway, WorldFault
from rounds.core.records import Prepared
from rounds.core.specs import DataSpec
from rounds.data import remote
from rounds.data.prepare import prepare
from rounds.data.sources import open_source
from rounds.imaging.packed import stored_png

LABELS = ("normal", "sick")


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (12, 12), dtype=np.uint8)


FILES = {f"{LABELS[n % 2]}/{n:02d}.png": stored_png(pixels(n)) for n in range(24)}


def packed(kind: str) -> bytes:
    """The films as one file of a kind."""
    out = io.BytesIO()
    if kind == "npz":
        images = np.stack([pixels(n) for n in range(24)])
        np.savez(out, train_images=images, train_labels=np.arange(24, dtype=np.uint8) % 2)
    elif kind == "zip":
        with zipfile.ZipFile(out, "w") as archive:
            for name, data in FILES.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(fileobj=out, mode="w:gz" if kind == "tar.gz" else "w") as tar:
            for name, data in FILES.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


MANIFEST = "path,label,age\n" + "".join(f"tree/{name},{name.split('/')[0]},4\n" for name in FILES)
KINDS = ("zip", "tar", "tar.gz", "npz")


@pytest.fixture(scope="module", params=[s3_server, gcs_server], ids=["s3", "gs"])
def cloud(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    """A store with the films in every form, to which this process's environment leads."""
    with request.param() as store:
        bucket = store.make_bucket("films")
        store.put(f"{bucket}/deep/tree", FILES)
        store.put(f"{bucket}/deep", {f"films.{kind}": packed(kind) for kind in KINDS})
        store.put(f"{bucket}/deep", {"films.csv": MANIFEST.encode(), "notes.txt": b"nothing here"})
        with store.reached():
            yield store


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same on the disk."""
    root = tmp_path_factory.mktemp("here") / "deep"
    for name, data in FILES.items():
        (root / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "tree" / name).write_bytes(data)
    for kind in KINDS:
        (root / f"films.{kind}").write_bytes(packed(kind))
    (root / "films.csv").write_text(MANIFEST)
    return root


def made(source: str | Path, tmp_path: Path, **options: object) -> Prepared:
    spec = DataSpec(str(source), "set", min_per_class=1, **options)  # type: ignore[arg-type]
    return prepare(spec, folder=tmp_path / "out")


@pytest.mark.parametrize("name", ["tree", "films.zip", "films.tar", "films.tar.gz", "films.npz", "films.csv"])
def test_a_source_behind_an_address_is_the_source_on_the_disk(
    cloud: Cloud, here: Path, tmp_path: Path, name: str
) -> None:
    far = made(f"{cloud.protocol}://films/deep/{name}", tmp_path)
    assert far.public() == made(here / name, tmp_path).public()
    assert far.taken == 24


def test_a_table_and_its_films_may_lie_apart(cloud: Cloud, here: Path, tmp_path: Path) -> None:
    near = made(here / "films.csv", tmp_path).dataset.digest
    assert made(here / "films.csv", tmp_path, root=f"{cloud.protocol}://films/deep/").dataset.digest == near
    assert made(f"{cloud.protocol}://films/deep/films.csv", tmp_path, root=str(here)).dataset.digest == near


def test_faults_of_a_remote_table_name_their_rows(cloud: Cloud) -> None:
    cloud.put(f"{cloud.protocol}://films/deep", {"bad.csv": b"path,label\ntree/gone.png,a\n../x.png,b\n"})
    with pytest.raises(BadSource) as raised, open_source(f"{cloud.protocol}://films/deep/bad.csv"):
        pass
    assert [(fault.where, fault.what) for fault in raised.value.faults] == [
        ("row 2", "no such file"),
        ("row 3", "the path leads out of the folder"),
    ]


@pytest.mark.parametrize("name", ["nowhere", "nowhere.zip", "nowhere.tar", "nowhere.csv"])
def test_what_is_not_in_the_bucket_is_the_callers_fault(cloud: Cloud, name: str) -> None:
    address = f"{cloud.protocol}://films/deep/{name}"
    with pytest.raises(BadSource, match=f"{address}: no such file or folder") as raised, open_source(address):
        pass
    assert raised.value.exit_code == 2


@pytest.mark.parametrize("name", ["tree", "films.zip", "films.tar"])
def test_a_bucket_that_is_not_there_is_the_worlds_fault(cloud: Cloud, name: str) -> None:
    with pytest.raises(StoreAway) as raised, open_source(f"{cloud.protocol}://nobucket/{name}"):
        pass
    assert raised.value.exit_code == 3
    assert (
        str(raised.value)
        .splitlines()[1]
        .endswith("no such bucket; expected a bucket that is there and may be read; got nobucket")
    )


def test_a_film_that_vanishes_is_refused_by_itself(cloud: Cloud, tmp_path: Path) -> None:
    address = f"{cloud.protocol}://films/going"
    cloud.put(address, FILES)
    store = fsspec.filesystem(cloud.protocol, skip_instance_cache=True)
    with open_source(address) as source:
        items = list(source.items)
        store.rm("films/going/sick/05.png")
        with pytest.raises(OSError, match="No such file"):
            next(item for item in items if item.name == "sick/05.png").read()
    assert source.readers == 16


def test_a_connection_that_is_lost_is_the_worlds_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with s3_server() as store:
        bucket = store.make_bucket("films")
        store.put(bucket, {f"tree/{name}": data for name, data in FILES.items()} | {"films.zip": packed("zip")})
        with store.reached(), open_source("s3://films/tree") as tree, open_source("s3://films/films.zip") as archive:
            store.stop()
            for source in (tree, archive):
                with pytest.raises(StoreAway) as raised:
                    [item.read() for item in source.items]
                assert raised.value.exit_code == 3
                what = "the store does not answer; expected an answer; got EndpointConnectionError"
                assert what in str(raised.value)
                assert "AWS_ENDPOINT_URL" in str(raised.value)


def test_credentials_that_are_refused_are_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(403)
            self.send_header("Content-Type", "application/xml")
            self.end_headers()
            self.wfile.write(b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with served(Refusing) as url:
        for name, value in (("AWS_ENDPOINT_URL", url), ("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")):
            monkeypatch.setenv(name, value)
        with pytest.raises(StoreAway, match=r"the store refuses to be read.*Check the credentials") as raised:
            open_source("s3://films/tree").__enter__()
    assert raised.value.exit_code == 3


class served:  # noqa: N801 (a context manager)
    """A web server on a free loopback port."""

    def __init__(self, handler: Callable[..., http.server.BaseHTTPRequestHandler]) -> None:
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)

    def __enter__(self) -> str:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "npz"])
def test_a_file_of_the_web_is_fetched_and_read(here: Path, tmp_path: Path, kind: str) -> None:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with served(partial(Quiet, directory=str(here))) as url:
        far = made(f"{url}/films.{kind}?download=1", tmp_path)
        with pytest.raises(BadSource, match="no such file or folder"):
            made(f"{url}/nowhere.zip", tmp_path)
    assert far.dataset.digest == made(here / f"films.{kind}", tmp_path).dataset.digest


def test_without_the_cloud_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)  # type: ignore[attr-defined]
    with pytest.raises(WorldFault) as raised:
        open_source("s3://films/tree")
    assert raised.value.exit_code == 3
    assert str(raised.value).splitlines()[-1].endswith("Pip install 'rounds[cloud]'")


def test_a_remote_file_tells_its_parts() -> None:
    file = remote.RemoteFile("memory://bucket/a/films.tar.gz")
    assert (str(file), file.name, file.suffix, str(file.parent)) == (
        "memory://bucket/a/films.tar.gz",
        "films.tar.gz",
        ".gz",
        "memory://bucket/a",
    )
