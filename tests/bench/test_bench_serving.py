"""The parts of the serving benchmark: what is sent, what is counted, and how it is summed up."""

from __future__ import annotations

import asyncio
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from bench.serving import Bench, Run, failures, lost
from bench.serving_films import BOUNDARY, SMALL, Kind, form, noted, write
from bench.serving_load import Load, cpu_seconds, has_wrk, memory_mb, tree, wrk
from bench.serving_once import last_before

from rounds.core.specs import ImagingSpec
from rounds.faces.web.body import parts
from rounds.imaging.fit import to_pixels

WORK = "import time; until = time.process_time() + 0.3\nwhile time.process_time() < until: pass"


def film(suffix: str) -> bytes:
    pixels = np.random.default_rng(3).integers(0, 256, (28, 28), dtype=np.uint8)
    return cv2.imencode(suffix, pixels)[1].tobytes()


@contextmanager
def started(program: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python that says "ready" and goes on until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"{program}\nprint('ready', flush=True)\ninput()", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.communicate(b"\n", timeout=20)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_noted_film_is_other_bytes_and_the_same_pixels(suffix: str) -> None:
    plain = film(suffix)
    one, other = noted(plain, "1-0"), noted(plain, "1-1")
    assert len({plain, one, other}) == 3
    same = [to_pixels(data, ImagingSpec(size=28)) for data in (plain, one, other)]
    assert np.array_equal(same[0], same[1])
    assert np.array_equal(same[0], same[2])


def test_no_two_bodies_of_a_run_or_of_two_runs_are_the_same() -> None:
    kind = Kind(SMALL, (film(".png"),), "made here")
    first, second = set(kind.bodies(1)), set(kind.bodies(2))
    assert (len(first), len(second), len(first & second)) == (10_000, 10_000, 0)


def test_a_form_is_read_as_a_browsers_upload() -> None:
    data = film(".png")
    read = asyncio.run(parts(f"multipart/form-data; boundary={BOUNDARY}", form("file", data, "image/png"), 4))
    assert [part.data for part in read] == [data]


def test_cpu_seconds_count_children_that_live_and_that_have_ended() -> None:
    ended = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WORK!r}])"
    with started(f"{ended}\nlives = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)") as one:
        assert len(tree(one.pid)) == 2
        assert cpu_seconds(one.pid) >= 0.3


def test_memory_counts_a_mapped_file_once_and_what_is_a_processs_own_each_time(tmp_path: Path) -> None:
    mapped = tmp_path / "mapped"
    mapped.write_bytes(bytes(64 * 1024 * 1024))
    see = (
        "import mmap, sys; file = open(sys.argv[1], 'rb')\n"
        "seen = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ); sum(seen[::4096])\n"
        "own = bytearray(b'x' * 2**25)"
    )
    child = (
        "import subprocess\n"
        f"child = subprocess.Popen([sys.executable, '-c', {(see + chr(10) + 'print(flush=True); input()')!r}, "
        "sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\nchild.stdout.readline()"
    )
    with started(f"{see}\n{child}", str(mapped)) as both, started(see, str(mapped)) as alone:
        more = memory_mb(both.pid) - memory_mb(alone.pid)
    assert 32 <= more < 32 + 20


def test_the_last_answer_of_the_version_before_is_what_a_swap_takes() -> None:
    seen = [(1.0, "v1"), (2.0, "v1"), (2.4, "v1"), (2.6, "v2"), (3.0, "v2"), (4.0, "v1")]
    assert last_before(seen, 1.9, 3.5) == pytest.approx(0.5)
    assert last_before(seen, 2.5, 3.5) == 0.0


def run(requests: int, cpu: float, failed: int = 0) -> Run:
    return Run(Load(requests, 1.0, failed, 1.0, 2.0, 3.0), cpu, cpu, 0)


def test_what_is_lost_is_a_share_of_the_answers_a_second_or_per_cpu_second() -> None:
    assert lost(run(1000, 1.0), run(900, 3.0), lambda run: run.rate) == pytest.approx(0.1)
    assert lost(run(1000, 1.0), run(1000, 2.0), lambda run: run.per_cpu) == pytest.approx(0.5)


def test_failures_of_the_peers_are_told_and_only_ours_are_held_against_us(tmp_path: Path) -> None:
    bench = Bench(1, tmp_path)
    bench.runs[SMALL, "ours", 64] += [run(100, 1.0), run(100, 1.0)]
    bench.runs[SMALL, "LitServe int8", 64] += [run(50, 1.0, failed=7)]
    row = failures(bench)
    assert row["value"] == 0
    assert "LitServe int8 7" in row["detail"]
    bench.runs[SMALL, "bare", 64] += [run(50, 1.0, failed=2)]
    assert failures(bench)["value"] == 2


@pytest.mark.skipif(not has_wrk(), reason="wrk is not installed; on Debian: apt-get install wrk")
def test_wrk_sends_each_body_in_turn_and_counts_what_is_refused(tmp_path: Path) -> None:
    seen: list[tuple[bytes, str]] = []

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            seen.append((body, self.headers["content-type"]))
            self.send_response(503 if body == b"refuse" else 200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    bodies = [b"one", bytes(range(256)), b"refuse"]
    write(tmp_path / "bodies", iter(bodies))
    assert (tmp_path / "bodies").read_bytes().startswith(struct.pack(">I", 3) + b"one")
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            load = wrk(f"http://127.0.0.1:{server.server_port}/x", tmp_path / "bodies", "image/png", 1, 1)
        finally:
            server.shutdown()
            thread.join()
    assert load.requests >= 3
    # Which comes first is wrk's: it builds one request before it sends any.
    sent = [body for body, _ in seen[:6]]
    assert sent[:3] == sent[3:]
    assert sorted(sent[:3]) == sorted(bodies)
    assert {content_type for _, content_type in seen} == {"image/png"}
    assert abs(load.failed - load.requests / 3) <= 1
    assert 0 < load.p50 <= load.p95 <= load.p99
