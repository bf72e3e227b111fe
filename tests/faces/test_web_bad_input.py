"""What comes from outside is hostile: each bad request has its status, its message and its next step."""

from __future__ import annotations

import http.client
import io
import json
import socket
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image
from tests.support.server import Served, server
from tests.support.workspace import films_as_png, promote


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("web") / "home"
    promote(home)
    with server(home) as running:
        yield running


def ask(served: Served, data: bytes, content_type: str = "image/png", query: str = "") -> httpx.Response:
    return httpx.post(f"{served.url}/v1/predict{query}", content=data, headers={"content-type": content_type})


def fault(answer: httpx.Response) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert set(problem) == {"type", "title", "status", "detail", "kind", "faults", "request_id"}
    (only,) = problem["faults"]
    assert set(only) == {"what", "where", "expected", "got", "next"}
    return {"kind": problem["kind"], "detail": problem["detail"], **only}


def png_header(width: int, height: int) -> bytes:
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))


def jpeg() -> bytes:
    out = io.BytesIO()
    Image.effect_noise((64, 64), 40).save(out, "JPEG")
    return out.getvalue()


def test_an_empty_body_is_400(served: Served) -> None:
    answer = ask(served, b"")
    assert answer.status_code == 400
    assert fault(answer) == {
        "kind": "BadImage",
        "detail": "the image cannot be read",
        "what": "the file is empty",
        "where": "",
        "expected": "a PNG, JPEG, TIFF or DICOM image of at most 16 bits a channel",
        "got": "0 bytes",
        "next": "export or copy the file again",
    }


def test_a_truncated_jpeg_is_400(served: Served) -> None:
    data = jpeg()
    answer = ask(served, data[: len(data) // 2], "image/jpeg")
    assert answer.status_code == 400
    found = fault(answer)
    assert (found["detail"], found["what"]) == ("the image is broken", "the JPEG ends early")
    assert found["got"] == "a header that says 64 x 64 pixels"


def test_text_named_png_is_415_and_says_what_it_looks_like(served: Served) -> None:
    answer = httpx.post(f"{served.url}/v1/predict", files={"file": ("film.png", b"not a picture\n", "image/png")})
    assert answer.status_code == 415
    found = fault(answer)
    assert (found["what"], found["got"]) == ("not an image we take", "text that begins 'not a picture'")
    assert found["where"] == "field 'file', file 'film.png'"


def test_a_png_header_of_50_000_by_50_000_is_413_before_anything_is_allocated(served: Served) -> None:
    answer = ask(served, png_header(50_000, 50_000))
    assert answer.status_code == 413
    found = fault(answer)
    assert found["detail"] == "the image is over a limit"
    assert found["got"] == "50,000 x 50,000 = 2,500,000,000 pixels"
    assert found["expected"] == "at most 64,000,000 pixels"


def test_an_animated_gif_is_415(served: Served) -> None:
    out = io.BytesIO()
    frames = [Image.new("L", (8, 8), shade) for shade in (0, 100, 200)]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    answer = ask(served, out.getvalue(), "image/gif")
    assert answer.status_code == 415
    assert fault(answer)["got"] == "a GIF"


def test_a_wrong_multipart_field_is_422_and_names_the_right_ones(served: Served) -> None:
    answer = httpx.post(f"{served.url}/v1/predict", files={"image": ("film.png", films_as_png(1)[0], "image/png")})
    assert answer.status_code == 422
    assert fault(answer) == {
        "kind": "BadRequest",
        "detail": "the multipart fields are not those of a prediction",
        "what": "unknown multipart field",
        "where": "body",
        "expected": "the field 'file' or 'files'",
        "got": "'image'",
        "next": "name the field 'file' or 'files'",
    }


def test_a_reference_sent_as_a_field_is_422_and_told_where_it_belongs(served: Served) -> None:
    film = {"file": ("film.png", films_as_png(1)[0], "image/png")}
    answer = httpx.post(f"{served.url}/v1/predict", files=film, data={"reference": "7"})
    assert answer.status_code == 422
    assert fault(answer)["next"] == "send reference and subject in the query"


def test_a_film_sent_as_text_is_422_and_told_how_to_send_it(served: Served) -> None:
    head = {"content-type": "multipart/form-data; boundary=x"}
    body = b'--x\r\ncontent-disposition: form-data; name="file"\r\n\r\nfilm.png\r\n--x--\r\n'
    answer = httpx.post(f"{served.url}/v1/predict", content=body, headers=head)
    assert answer.status_code == 422
    assert fault(answer)["next"] == "send it as a file: curl -F file=@film.png"


def test_a_form_without_a_film_is_422(served: Served) -> None:
    head = {"content-type": "multipart/form-data; boundary=x"}
    answer = httpx.post(f"{served.url}/v1/predict", content=b"--x--\r\n", headers=head)
    assert answer.status_code == 422
    assert fault(answer)["what"] == "no film in the request"


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary=x"])
def test_a_body_that_is_not_multipart_though_it_says_so_is_400(served: Served, content_type: str) -> None:
    answer = ask(served, b"no boundary here", content_type)
    assert answer.status_code == 400
    assert fault(answer)["what"] == "the multipart body cannot be read"


def test_several_films_are_answered_all_or_none_and_every_bad_one_is_named(served: Served) -> None:
    good = films_as_png(1)[0]
    files = [("files", (name, data)) for name, data in [("a.png", good), ("b.png", b"text"), ("c.jpg", jpeg()[:99])]]
    answer = httpx.post(f"{served.url}/v1/predict", files=files)
    assert answer.status_code == 415
    problem = answer.json()
    assert problem["detail"] == "2 of 3 images are not taken; none was answered"
    assert [(f["where"], f["what"]) for f in problem["faults"]] == [
        ("field 'files', file 'b.png'", "not an image we take"),
        ("field 'files', file 'c.jpg'", "the JPEG ends early"),
    ]


@pytest.mark.parametrize("content_type", ["text/plain", "application/json", "application/x-www-form-urlencoded"])
def test_another_content_type_is_415_and_told_which_ones_are_taken(served: Served, content_type: str) -> None:
    answer = ask(served, films_as_png(1)[0], content_type)
    assert answer.status_code == 415
    found = fault(answer)
    assert found["got"] == content_type
    assert found["expected"] == "image/*, application/dicom, application/octet-stream or multipart/form-data"


def test_a_misspelt_query_parameter_is_422_and_the_near_name_is_suggested(served: Served) -> None:
    answer = ask(served, films_as_png(1)[0], query="?referense=7")
    assert answer.status_code == 422
    found = fault(answer)
    assert (found["got"], found["next"]) == ("referense", "did you mean reference?")


@pytest.mark.parametrize(
    ("query", "what"),
    [
        ("?reference=", "the value cannot be used"),
        ("?subject=" + "s" * 257, "the value cannot be used"),
        ("?reference=a%0Ab", "the value cannot be used"),
        ("?reference=a&reference=b", "a name stands twice"),
    ],
)
def test_a_query_value_that_cannot_be_kept_is_422(served: Served, query: str, what: str) -> None:
    answer = ask(served, films_as_png(1)[0], query=query)
    assert answer.status_code == 422
    assert fault(answer)["what"] == what


def test_a_body_of_30_mb_is_413_and_its_sender_reads_why(served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
    connection.request("POST", "/v1/predict", body=bytes(30_000_000), headers={"content-type": "image/png"})
    answer = connection.getresponse()
    problem = json.loads(answer.read())
    assert (answer.status, answer.headers["connection"]) == (413, "close")
    assert problem["faults"] == [
        {
            "what": "the body is too large",
            "where": "body",
            "expected": "at most 20,971,520 bytes",
            "got": "30,000,000 bytes",
            "next": "send a smaller image",
        }
    ]


def test_a_declared_length_over_the_limit_is_refused_before_a_byte_of_the_body_is_sent(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as sock:
        sock.sendall(
            b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ncontent-length: 30000000\r\n\r\n"
        )
        assert sock.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_an_endless_upload_without_a_length_is_cut_off_at_the_limit(served: Served) -> None:
    sent = 0
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as sock:
        sock.sendall(
            b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        chunk = b"%x\r\n" % (1 << 20) + bytes(1 << 20) + b"\r\n"
        while sent < 22:
            sock.sendall(chunk)
            sent += 1
        answer = b""
        while b"request_id" not in answer:
            answer += sock.recv(4096)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"got": "more than 20,971,520 bytes"' in answer


def test_an_unknown_address_is_404_and_a_wrong_method_405_with_the_right_one(served: Served) -> None:
    nothing = httpx.get(f"{served.url}/v2/predict")
    assert (nothing.status_code, nothing.json()["title"]) == (404, "There is nothing at this address")
    for path in ("/v1/predict", "/v1/labels"):
        wrong = httpx.get(f"{served.url}{path}")
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
        assert wrong.headers["content-type"] == "application/problem+json"


def test_labels_that_are_not_a_json_list_are_refused_whole_with_the_reason(served: Served) -> None:
    broken = httpx.post(f"{served.url}/v1/labels", content=b"[{")
    assert (broken.status_code, fault(broken)["what"]) == (400, "the body is not JSON")
    text = httpx.post(f"{served.url}/v1/labels", json="normal")
    assert (text.status_code, fault(text)["got"]) == (422, "text")
    deep = httpx.post(f"{served.url}/v1/labels", content=b"[" * 100_000)
    assert (deep.status_code, fault(deep)["what"]) == (400, "the body is not JSON")


def test_the_server_answers_as_before_after_all_of_this(served: Served) -> None:
    assert ask(served, films_as_png(1)[0]).status_code == 200
    assert served.process.poll() is None
    assert not [line for line in served.lines if "Traceback" in line]
