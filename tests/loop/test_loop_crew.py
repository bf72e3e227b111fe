"""The processes that answer films: what they raise is raised here, and a film that kills them is found out."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from tests.support.bundles import tiny_bundle, tiny_films

from rounds.core.errors import DamagedBundle, OurFault, WorldFault
from rounds.core.specs import Limits
from rounds.imaging.fit import encode_png
from rounds.loop import crew
from rounds.loop.clerk import Clerk, Job
from rounds.loop.outfile import unpacked

# Python imports this before anything else: decoding a film whose bytes end so does what a broken decoder would.
HOOK = """
import os, rounds.imaging.fit as fit
plain = fit.to_pixels
def to_pixels(data, *given):
    for word, does in ((b"KILLS", lambda: os.kill(os.getpid(), 11)), (b"FAILS", lambda: 1 / 0)):
        if data.endswith(word):
            does()
    return plain(data, *given)
fit.to_pixels = to_pixels
"""


@pytest.fixture
def job(tmp_path: Path) -> Job:
    bundle = tiny_bundle(tmp_path / "bundles")
    return Job(bundle.path, bundle.digest, "v1", Limits())


@pytest.fixture
def films(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{i:03d}.png" for i in range(100)]
    for path, film in zip(paths, tiny_films(100), strict=True):
        path.write_bytes(encode_png(film))
    return [str(path) for path in paths]


@pytest.fixture
def hooked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(HOOK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hook"))


def chunks(films: list[str]) -> list[tuple[int, list[str]]]:
    return [(number, films[number * 20 : number * 20 + 20]) for number in range(5)]


def test_two_processes_give_the_chunks_of_one_clerk(job: Job, films: list[str]) -> None:
    found = dict(crew.processes(job, iter(chunks(films)), 2))
    clerk = Clerk(job)
    assert found == {number: clerk.answer(paths) for number, paths in chunks(films)}


def test_films_that_kill_are_refused_and_all_others_answered(job: Job, films: list[str], hooked: None) -> None:
    for place in (25, 31, 99):
        with Path(films[place]).open("ab") as file:
            file.write(b"KILLS")
    found = {number: unpacked(data) for number, data in crew.processes(job, iter(chunks(films)), 2)}
    assert [found[number].answered for number in range(5)] == [20, 18, 20, 20, 19]
    refused = [row for number in range(5) for row in found[number].refused]
    assert [row["path"] for row in refused] == [films[25], films[31], films[99]]
    assert {row["reason"] for row in refused} == {"kills the process that decodes it (signal 11)"}
    lost = {5: refused[0]["reason"], 11: refused[0]["reason"]}
    assert found[1] == unpacked(Clerk(job).answer(films[20:40], lost))


def test_a_process_that_was_killed_from_outside_is_replaced(job: Job, films: list[str]) -> None:
    posts = crew.Processes(job, 2)
    try:
        found = {}
        for number, data in posts.answer(iter(chunks(films))):
            if not found:
                for post in posts._posts:
                    os.kill(post.process.pid, signal.SIGKILL)
            found[number] = unpacked(data).answered
    finally:
        posts.close()
    assert found == dict.fromkeys(range(5), 20)


def test_a_process_that_is_killed_wherever_it_is_ends_the_run(
    job: Job, films: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os, sys\nif '-m' in sys.orig_argv: os.kill(os.getpid(), 9)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(
        WorldFault, match=r"processes that answer films are killed\n.*killed by signal 9, twice\. Free m"
    ):
        list(crew.processes(job, iter(chunks(films)), 1))


def test_a_bug_in_a_process_is_told_as_one(job: Job, films: list[str], hooked: None, capfd) -> None:
    with Path(films[0]).open("ab") as file:
        file.write(b"FAILS")
    with pytest.raises(OurFault, match=r"ended through a bug of ours\n.*clerk: a process ended.*got exit status 1"):
        list(crew.processes(job, iter(chunks(films)), 1))
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_what_a_process_finds_wrong_is_raised_here(job: Job, films: list[str]) -> None:
    (job.path / "model.onnx").write_bytes(b"no network")
    with pytest.raises(
        DamagedBundle, match=r"the bundle at .* is damaged: model.onnx\n  model.onnx: the file has chang"
    ):
        list(crew.processes(job, iter(chunks(films)), 1))


def test_another_bundle_in_the_place_of_the_one_that_was_meant_is_refused(job: Job, tmp_path: Path) -> None:
    other = tiny_bundle(tmp_path / "others", classes=("a", "b"))
    with pytest.raises(DamagedBundle, match=r"the bundle has changed on the way\n.*another bundle lies here; expected"):
        Clerk(Job(other.path, job.digest, "v1", Limits()))
