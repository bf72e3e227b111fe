"""A run over many films that is cut off goes on where it was, and ends with the bytes of one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.bundles import tiny_films
from tests.support.captured import Ward

from rounds.core.errors import NotWritable, WorldFault
from rounds.core.specs import Limits, ServeSpec
from rounds.imaging.fit import encode_png
from rounds.loop import batch, outfile, ruling

# A command whose processes begin at once; each chunk takes it some time, as films of full size would.
COMMAND = """
import sys, time
from rounds.faces.cli.app import run
from rounds.loop import batch
batch.WORTH_S = 0.0
take = batch._Run.take
batch._Run.take = lambda *given: (take(*given), time.sleep(0.05))[0]
run(sys.argv[1:])
"""


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    for i, film in enumerate(tiny_films(1200, seed=3)):
        (folder / f"film-{i:04d}.png").write_bytes(encode_png(film))
    (folder / "film-0700.png").write_text("no image")
    return folder


def cut_off(ward: Ward, films: Path, out: Path, chunks: int = 5) -> None:
    """Begin, and be killed when so many chunks are answered."""
    words = ["--home", str(ward.ports.home), "predict", str(films), "--out", str(out), "--workers", "2"]
    run = subprocess.Popen([sys.executable, "-c", COMMAND, *words], stderr=subprocess.PIPE, start_new_session=True)
    try:
        while len(list(outfile.part(out).glob("*.chunk"))) < chunks:
            assert run.poll() is None, "it ended before it was killed"
            time.sleep(0.005)
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert run.stderr is not None
    # its end of stderr closes when its processes are gone too
    assert run.stderr.read() == b""
    run.stderr.close()


def test_a_run_that_was_killed_goes_on_and_ends_with_the_same_bytes(ward: Ward, films: Path, tmp_path: Path) -> None:
    told: list[str] = []
    for ending in ("jsonl", "csv", "parquet"):
        whole, out = tmp_path / f"whole.{ending}", tmp_path / f"cut.{ending}"
        said = batch.predict(ward.ports, "champion", [films], out=whole)
        cut_off(ward, films, out)
        assert not out.exists()
        steps: list[tuple[int, int]] = []
        again = batch.predict(
            ward.ports,
            "champion",
            [films],
            out=out,
            workers=1,
            tell=told.append,
            progress=lambda at, of, steps=steps: steps.append((at, of)),
        )
        assert again == said
        assert out.read_bytes() == whole.read_bytes()
        assert not outfile.part(out).exists()
        kept = int(told.pop().removeprefix("going on: ").split()[0])
        assert kept >= 5 * 64 - 16, "chunks of 64, the last one of 48"
        assert (steps[0][0] - 64 <= kept, steps[-1]) == (True, (1200, 1200))
        assert len(steps) == -(-(1200 - kept) // 64)
    assert told == []


def test_films_that_changed_meanwhile_are_answered_anew(ward: Ward, films: Path, tmp_path: Path) -> None:
    out, told = tmp_path / "cut.jsonl", list[str]()
    cut_off(ward, films, out, chunks=19)
    (films / "film-0000.png").write_bytes((films / "film-0001.png").read_bytes())
    (films / "film-0200.png").unlink()
    (films / "film-0200.png").symlink_to(films / "film-0201.png")
    os.utime(films / "film-0700.png", ns=(1, 1))
    said = batch.predict(ward.ports, "champion", [films], out=out, tell=told.append)
    assert told == [
        f"going on: {1200 - 3 * 64} of 1200 films are answered already",
        "3 of 19 chunks hold films that have changed: answering them anew",
    ]
    whole = batch.predict(ward.ports, "champion", [films], out=tmp_path / "whole.jsonl")
    assert said == whole
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_chunk_that_was_damaged_is_answered_anew(ward: Ward, films: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut.jsonl"
    cut_off(ward, films, out, chunks=19)
    chunks = sorted(outfile.part(out).glob("*.chunk"))
    chunks[2].write_bytes(chunks[2].read_bytes()[:-9])
    chunks[3].write_bytes(b"")
    told = list[str]()
    batch.predict(ward.ports, "champion", [films], out=out, tell=told.append)
    assert told == [f"going on: {1200 - 2 * 64} of 1200 films are answered already"]
    batch.predict(ward.ports, "champion", [films], out=tmp_path / "whole.jsonl")
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_other_limits_begin_anew_and_say_so(ward: Ward, films: Path, tmp_path: Path) -> None:
    out, told = tmp_path / "cut.jsonl", list[str]()
    cut_off(ward, films, out)
    ruling.change(ward.ports, replace(ruling.in_force(ward.ports), serve=ServeSpec(limits=Limits(max_bytes=400_000))))
    said = batch.predict(ward.ports, "champion", [films], out=out, tell=told.append)
    assert told == [f"{outfile.part(out)} was begun with another limits: starting anew"]
    assert len(said["predictions"]) == 1199


def test_another_bundle_begins_anew_and_says_so(ward: Ward, films: Path, tmp_path: Path) -> None:
    out, told = tmp_path / "cut.jsonl", list[str]()
    cut_off(ward, films, out)
    state = outfile.part(out) / outfile.STATE
    state.write_text(json.dumps(json.loads(state.read_text()) | {"bundle": "0" * 64, "version": "v0"}))
    batch.predict(ward.ports, "champion", [films / "film-0000.png"], out=out, tell=told.append)
    assert told == [f"{outfile.part(out)} was begun with another bundle and version: starting anew"]
    assert len(out.read_text().splitlines()) == 1


def test_a_state_that_cannot_be_read_begins_anew(ward: Ward, films: Path, tmp_path: Path) -> None:
    out, told = tmp_path / "cut.jsonl", list[str]()
    outfile.part(out).mkdir()
    (outfile.part(out) / outfile.STATE).write_text("{")
    batch.predict(ward.ports, "champion", [films / "film-0000.png"], out=out, tell=told.append)
    assert told == [f"{outfile.part(out)} was begun with another release: starting anew"]


def test_a_folder_of_somebody_else_is_left_alone(ward: Ward, films: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    outfile.part(out).mkdir()
    (outfile.part(out) / "thesis.txt").write_text("mine")
    with pytest.raises(
        NotWritable, match=r"cannot write a.jsonl\n.*a.jsonl.part: a folder of somebody else; expected n"
    ):
        batch.predict(ward.ports, "champion", [films], out=out)
    assert (outfile.part(out) / "thesis.txt").read_text() == "mine"


def test_two_runs_do_not_write_the_same_file(ward: Ward, films: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    with (
        outfile.kept_beside(out, {}, print),
        pytest.raises(NotWritable, match=r"cannot write a.jsonl\n.*another run is writing it. Wait for it, or name an"),
    ):
        batch.predict(ward.ports, "champion", [films], out=out)


def test_answers_that_vanish_while_it_runs_are_told(ward: Ward, films: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"

    def spoil(_done: int, _of: int) -> None:
        for chunk in outfile.part(out).glob("*.chunk"):
            chunk.write_bytes(b"spoilt")

    with pytest.raises(WorldFault, match=r"answers that were kept are gone\n.*00000000.chunk: .*Run the command again"):
        batch.predict(ward.ports, "champion", [films / "film-0000.png"], out=out, progress=spoil)
