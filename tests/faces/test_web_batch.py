"""Archives over HTTP: each film by its name, bounded before it is unpacked."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Iterator, Mapping

import httpx
import pytest
from tests.support.server import Served, server
from tests.support.workspace import films_as_png, promote

from rounds.core.errors import BadRequest
from rounds.faces.web import archive
from rounds.faces.web.archive import films

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("batch") / "home"
    promote(home)
    with server(home) as running:
        yield running


def zipped(entries: Mapping[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", how) as packed:
        for name, data in entries.items():
            packed.writestr(name, data)
    return out.getvalue()


def tarred(entries: Mapping[str, bytes], mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as packed:  # type: ignore[call-overload]
        for name, data in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            packed.addfile(info, io.BytesIO(data))
    return out.getvalue()


def ask(served: Served, body: bytes, media: str = "application/zip") -> httpx.Response:
    return httpx.post(f"{served.url}/v1/predict/batch", content=body, headers={"content-type": media}, timeout=60)


def test_every_film_is_answered_in_order_as_it_is_alone_and_a_bad_one_is_refused_by_name(served: Served) -> None:
    entries = {f"night/{i:02d}.png": film for i, film in enumerate(films_as_png(40))}
    bodies = {
        "application/zip": zipped({**entries, "notes.txt": b"hello", "night/": b"", "__MACOSX/x": b""}),
        "application/x-tar": tarred({**entries, "notes.txt": b"hello"}),
        "application/gzip": tarred({**entries, "notes.txt": b"hello"}, "w:gz"),
    }
    alone = [httpx.post(f"{served.url}/v1/predict", content=film).json() for film in entries.values()]
    for media, body in bodies.items():
        answer = ask(served, body, media).json()
        assert [one["path"] for one in answer["predictions"]] == list(entries)
        for one, single in zip(answer["predictions"], alone, strict=True):
            different = {"id", "ms", "path"}
            assert {k: v for k, v in one.items() if k not in different} == {
                k: v for k, v in single.items() if k not in different
            }
        (refused,) = answer["refused"]
        assert refused["path"] == "notes.txt"
        assert "not an image we take" in refused["reason"]


def test_a_form_of_many_files_is_answered_by_their_names(served: Served) -> None:
    files = [("files", ("a.png", films_as_png(1)[0])), ("files", ("b.png", b"broken"))]
    answer = httpx.post(f"{served.url}/v1/predict/batch", files=files).json()
    assert [one["path"] for one in answer["predictions"]] == ["a.png"]
    assert [one["path"] for one in answer["refused"]] == ["b.png"]


def test_what_is_no_archive_is_refused_whole_with_its_status(served: Served) -> None:
    whole = zipped({"a.png": films_as_png(1)[0]})
    for body, media, status, detail in (
        (b"no archive", "application/zip", 415, "the body is not an archive that is taken"),
        (whole, "image/png", 415, "the content type is not that of an archive"),
        (whole[:-30], "application/zip", 400, "the archive cannot be read"),
        (gzip.compress(b"x" * 1000), "application/gzip", 400, "the archive cannot be read"),
        (zipped({}), "application/zip", 422, "there is nothing to answer"),
        (zipped({f"{i}.png": b"" for i in range(1001)}), "application/zip", 413, "the archive holds too many films"),
        (
            tarred({f"{i}.png": b"" for i in range(1001)}, "w:gz"),
            "application/gzip",
            413,
            "the archive holds too many films",
        ),
        (gzip.compress(bytes(90 * MIB)), "application/gzip", 422, "there is nothing to answer"),
    ):
        answer = ask(served, body, media)
        assert (answer.status_code, answer.json()["detail"]) == (status, detail)
    assert ask(served, whole).status_code == 200


def test_a_film_that_is_too_large_or_lies_about_its_size_is_refused_alone() -> None:
    body = zipped({"large.png": bytes(3000), "small.png": b"x", "lies.png": bytes(2500)})
    at = body.index(b"lies.png", body.index(b"PK\x01\x02")) - 46
    body = body[: at + 24] + struct.pack("<I", 10) + body[at + 28 :]
    found = {film.name: film.reason for film in films(body, 1000)}
    assert found["small.png"] == ""
    assert found["large.png"] == "the film is too large; expected at most 1,000 bytes"
    assert "cannot be read" in found["lies.png"] or "too large" in found["lies.png"]
    tarball = {film.name: film.reason for film in films(tarred({"a": bytes(3000), "b": b"x"}), 1000)}
    assert tarball == {"a": "the film is too large; expected at most 1,000 bytes", "b": ""}


def test_links_and_encrypted_entries_are_refused_by_name() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as packed:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        packed.addfile(link)
    assert [film.reason for film in films(out.getvalue(), 1000)] == ["the entry is no regular file"]
    body = bytearray(zipped({"a.png": b"x"}))
    body[body.index(b"PK\x01\x02") + 8] |= 1
    assert [film.reason for film in films(bytes(body), 1000)] == ["the entry is encrypted"]


def test_bombs_are_refused_before_they_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "FREE_BYTES", 4 * MIB)
    bombs = {
        "many large entries": zipped({f"{i}.png": bytes(MIB) for i in range(200)}),
        "a long tail": gzip.compress(tarred({"a.png": bytes(64 * MIB)})),
        "a header that claims a long name": gzip.compress(_long_name(32 * MIB)),
    }
    for what, body in bombs.items():
        tracemalloc.start()
        with pytest.raises(BadRequest, match="the archive is too large"):
            for _ in films(body, 2 * MIB):
                pass
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 24 * MIB, what
    directory = zipped({"a": b""})
    many = directory.replace(
        b"PK\x05\x06" + bytes(4) + b"\x01\x00\x01\x00", b"PK\x05\x06" + bytes(4) + b"\xff\xff\xff\xff"
    )
    assert many != directory
    with pytest.raises(BadRequest, match="the archive holds too many films"):
        list(films(many, MIB))


def _long_name(size: int) -> bytes:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, size
    return info.tobuf() + b"a" * size
