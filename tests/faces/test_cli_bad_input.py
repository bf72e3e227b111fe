"""Bad input on the command line: each is refused with its message and its exit code, in JSON and for people."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.support.bundles import tiny_bundle, tiny_films
from tests.support.commands import Said, rounds
from tests.support.datasets import tiny_dataset
from tests.support.workspace import opened, promote

from rounds.imaging.fit import encode_png
from rounds.loop import intake

FAULT = {"what", "where", "expected", "got", "next"}


def refused(said: Said, code: int, kind: str, message: str) -> None:
    """The command ended with this code, one JSON object on stdout, and the same message for people on stderr."""
    assert (said.code, said.json["error"]["kind"], said.message) == (code, kind, message), said
    assert all(set(fault) == FAULT for fault in said.json["error"]["faults"])
    assert f"rounds: {message}\n" in said.err


def jpeg() -> bytes:
    return bytes(cv2.imencode(".jpg", tiny_films(1, size=64)[0, 0])[1].tobytes())


def source(root: Path, counts: Mapping[str, int]) -> Path:
    """A folder of noise films by class, no two of them alike."""
    random = np.random.default_rng(0)
    for name, n in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(n):
            (root / name / f"{i:03d}.png").write_bytes(encode_png(random.integers(0, 256, (28, 28), dtype=np.uint8)))
    return root


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("empty.png", b"", "the image cannot be read"),
        ("cut.jpeg", jpeg()[: len(jpeg()) // 2], "the image is broken"),
        ("text.png", b"dear reader, this is no image", "the image is not taken"),
    ],
)
def test_what_is_no_image_is_refused_alone_and_the_rest_is_answered(
    home: Path, tmp_path: Path, name: str, data: bytes, reason: str
) -> None:
    promote(home)
    (tmp_path / name).write_bytes(data)
    (tmp_path / "good.png").write_bytes(encode_png(tiny_films(1)[0]))
    said = rounds(home, "predict", tmp_path / name, tmp_path / "good.png", "--json")
    assert said.code == 0
    assert [row["path"] for row in said.json["predictions"]] == [str(tmp_path / "good.png")]
    ((row),) = said.json["refused"]
    assert row["path"] == str(tmp_path / name)
    assert row["reason"].startswith(reason)
    alone = rounds(home, "predict", tmp_path / name, "--out", tmp_path / "out.csv", "--json")
    refused(alone, 2, "BadImage", "nothing could be predicted")
    assert (alone.json["bundle"], alone.json["predictions"]) == (said.json["bundle"], [])
    assert alone.json["refused"] == said.json["refused"]
    assert not (tmp_path / "out.csv").exists()


def test_a_name_that_is_no_text_is_answered_in_ascii(home: Path, tmp_path: Path) -> None:
    promote(home)
    film = os.fsdecode(os.fsencode(tmp_path) + b"/f\xfflm-\xc3\xa9.png")
    Path(film).write_bytes(encode_png(tiny_films(1)[0]))
    said = rounds(home, "predict", film, "--json")
    assert said.json["predictions"][0]["path"] == film
    assert said.out.isascii()


def test_a_folder_without_a_file_gives_nothing_to_predict(home: Path, tmp_path: Path) -> None:
    promote(home)
    (tmp_path / "none").mkdir()
    refused(rounds(home, "predict", tmp_path / "none", "--json"), 2, "BadImage", "nothing could be predicted")
    said = rounds(home, "predict", tmp_path / "absent", "--json")
    refused(said, 2, "CallerFault", "1 of 1 paths do not exist")
    said = rounds(home, "predict", tmp_path / "none", "--out", tmp_path / "out.xls", "--json")
    refused(said, 2, "BadRequest", "cannot write out.xls")


def test_a_class_with_one_image_is_refused(home: Path, tmp_path: Path) -> None:
    said = rounds(
        home, "data", "prepare", source(tmp_path / "films", {"normal": 60, "sick": 1}), "--name", "x", "--json"
    )
    refused(said, 2, "BadSource", f"cannot make a data set of {tmp_path / 'films'}")
    assert "sick: " in said.err
    assert "got 1 film. Add films of this class or leave it out" in said.err


def test_labels_that_contradict_each_other_are_refused_by_both_names(home: Path, tmp_path: Path) -> None:
    films = source(tmp_path / "films", {"normal": 20, "sick": 20})
    shutil.copy(films / "normal" / "003.png", films / "sick" / "copy.png")
    said = rounds(home, "data", "prepare", films, "--name", "x", "--json")
    refused(said, 2, "BadSource", f"cannot make a data set of {films}")
    assert "the same image carries two labels" in said.err
    assert "normal/003.png" in said.err
    assert "sick/copy.png" in said.err


def test_an_archive_that_climbs_out_of_its_folder_is_refused_and_writes_nothing(home: Path, tmp_path: Path) -> None:
    path, film = tmp_path / "films.tar", encode_png(tiny_films(1)[0])
    with tarfile.open(path, "w") as archive:
        for name in ("normal/a.png", "sick/b.png", "../../escaped.png"):
            info = tarfile.TarInfo(name)
            info.size = len(film)
            archive.addfile(info, io.BytesIO(film))
    said = rounds(home, "data", "prepare", path, "--name", "x", "--json")
    refused(said, 2, "BadSource", f"cannot make a data set of {path}")
    assert "a path that climbs out" in said.err
    assert "../../escaped.png" in said.err
    assert not list(tmp_path.parent.rglob("escaped.png"))


def test_a_leak_across_given_splits_is_refused_with_both_paths(home: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        source(tmp_path / "films" / split, {"normal": 20, "sick": 20})
    # the same seed drew the same films for both splits
    said = rounds(home, "data", "prepare", tmp_path / "films", "--name", "x", "--json")
    assert (said.code, said.json["error"]["kind"]) == (4, "LeakFound")
    assert ["train/normal/000.png", "test/normal/000.png"] in [sorted(p, reverse=True) for p in said.json["leaks"]]
    assert len(said.json["leaks"]) == 40
    spoken = rounds(home, "data", "prepare", tmp_path / "films", "--name", "x")
    assert (spoken.code, spoken.out) == (4, "")
    assert all(first in spoken.err and second in spoken.err for first, second in said.json["leaks"])
    assert rounds(home, "history", "--json").json == {"events": []}


def test_a_kill_in_the_middle_of_training_leaves_a_whole_state_and_the_next_command_says_so(home: Path) -> None:
    with opened(home) as ports:
        intake.enter(ports, tiny_dataset(ports.datasets, size=32), why="a test")
    before = rounds(home, "history", "--json").json
    command = [
        sys.executable,
        "-m",
        "rounds",
        "--home",
        str(home),
        "train",
        "train.epochs=5000",
        "train.progress=false",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        end = time.monotonic() + 280
        while not _epochs(home) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        _, told = process.communicate()
    assert process.returncode == -signal.SIGKILL, told
    said = rounds(home, "models", "--json")
    assert (said.code, said.json) == (0, {"champion": None, "versions": [], "staged": None})
    sentence = r"rounds: run (\w+) was interrupted at epoch \d+ of 5000; to go on: rounds train --resume \1\n"
    assert re.fullmatch(sentence, said.err)
    assert rounds(home, "history", "--json").json == before
    assert rounds(home, "audit", "--json").json["ok"] is True
    assert rounds(home, "models").err == ""
    refused(rounds(home, "evaluate", "latest", "--data", "tiny", "--json"), 2, "UnknownId", "no bundle 'latest'")
    assert not list(home.rglob("*.part"))


def _epochs(home: Path) -> int:
    return sum(json.loads(path.read_bytes())["epoch"] for path in home.glob("runs/*/state.json"))


def test_a_bundle_with_one_flipped_bit_is_refused_by_the_name_of_the_file(home: Path, tmp_path: Path) -> None:
    bundle = promote(home)
    model = bytearray((bundle.path / "model.onnx").read_bytes())
    model[len(model) // 2] ^= 1
    (bundle.path / "model.onnx").write_bytes(model)
    (tmp_path / "film.png").write_bytes(encode_png(tiny_films(1)[0]))
    for ref in ("champion", str(bundle.path)):
        said = rounds(home, "predict", tmp_path / "film.png", "--bundle", ref, "--json")
        refused(said, 3, "DamagedBundle", f"the bundle at {bundle.path} is damaged: model.onnx")


def test_a_port_in_use_ends_the_server_with_3(home: Path) -> None:
    promote(home)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "rounds", "--home", str(home), "serve", "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (3, "")
    assert f"rounds: port {port} is in use\n  127.0.0.1:{port}: somebody else listens there" in done.stderr
    assert f"--port {port + 1}" in done.stderr


@pytest.mark.parametrize("inside", ["file", "/proc"])
def test_a_workspace_that_cannot_be_written_ends_with_3(tmp_path: Path, inside: str) -> None:
    (tmp_path / "file").write_text("a regular file")
    home = (Path(inside) if inside == "/proc" else tmp_path / inside) / "workspace"
    for command in (["models"], ["data", "prepare", "phantom:", "--name", "x"]):
        said = rounds(home, *command, "--json")
        refused(said, 3, "NotWritable", f"the workspace {home} cannot be written")
        assert "--home DIR" in said.err


def test_a_page_that_cannot_be_written_ends_with_3(home: Path, tmp_path: Path) -> None:
    bundle = promote(home)
    with opened(home) as ports:
        intake.enter(ports, tiny_dataset(ports.datasets), why="a test")
    (tmp_path / "file").write_text("a regular file")
    page = tmp_path / "file" / "page.html"
    said = rounds(home, "evaluate", bundle.digest, "--data", "tiny", "--out", page, "--json")
    refused(said, 3, "NotWritable", "cannot write page.html")


@pytest.mark.parametrize(
    ("command", "kind", "message"),
    [
        ("evaluate nosuch --data tiny", "UnknownId", "no bundle 'nosuch'"),
        ("promote nosuch", "UnknownId", "no bundle 'nosuch'"),
        ("predict FILM --bundle nosuch", "UnknownId", "no bundle 'nosuch'"),
        ("predict FILM", "UnknownId", "there is no champion"),
        ("export nosuch", "UnknownId", "no run 'nosuch'"),
        ("evaluate BUNDLE --data nosuch", "UnknownId", "no data set 'nosuch'"),
        ("evaluate BUNDLE --data tiny --split tset", "BadSource", "tiny has no films to measure with"),
        ("train --data nosuch", "UnknownId", "no data set 'nosuch'"),
        ("data stats nosuch", "UnknownId", "no data set 'nosuch'"),
        ("data prepare nosuch --name x", "BadSource", "cannot make a data set of 'nosuch'"),
        ("data prepare phantom:", "CallerFault", "Missing option '--name'."),
        ("trace nosuch", "UnknownId", "no prediction 'nosuch'"),
        ("rollback --to v9", "UnknownId", "no version 'v9'"),
        ("label nosuch.csv", "BadLabel", "cannot read nosuch.csv"),
        ("erase --subject nosuch", "UnknownId", "no such subject"),
        ("train --data tiny trian.epochs=2", "BadOverride", "1 of the settings cannot be used"),
        ("policy gate.marign=0.1", "BadOverride", "1 of the settings cannot be used"),
        ("nosuch", "CallerFault", "No such command 'nosuch'."),
        ("data nosuch", "CallerFault", "No such command 'nosuch'."),
        ("models --nosuch", "CallerFault", "No such option: --nosuch"),
        ("evaluate", "CallerFault", "Missing argument 'bundle'."),
        (
            "data prepare phantom: --name x --val 2",
            "CallerFault",
            "Invalid value for '--val': Input should be less than or equal to 0.5",
        ),
    ],
)
def test_what_names_nothing_is_the_callers_fault(
    home: Path, tmp_path: Path, command: str, kind: str, message: str
) -> None:
    with opened(home) as ports:
        intake.enter(ports, tiny_dataset(ports.datasets, splits={"test": 40}), why="a test")
    (tmp_path / "film.png").write_bytes(encode_png(tiny_films(1)[0]))
    given = command.replace("FILM", str(tmp_path / "film.png"))
    if "BUNDLE" in given:
        given = given.replace("BUNDLE", str(tiny_bundle(home / "bundles").path))
    refused(rounds(home, *given.split(), "--json"), 2, kind, message)


def test_a_rollback_without_an_earlier_version_is_refused_by_the_rule(home: Path) -> None:
    promote(home)
    said = rounds(home, "rollback", "--json")
    refused(said, 4, "Refused", "the rollback is refused")
    assert "nowhere to go back to" in said.err


@pytest.mark.parametrize(
    ("command", "near"),
    [("train trian.epochs=2", "Did you mean train.epochs?"), ("policy gate.marign=0.1", "Did you mean gate.margin?")],
)
def test_an_unknown_override_is_told_the_nearest_right_name(home: Path, command: str, near: str) -> None:
    assert near in rounds(home, *command.split()).err


@pytest.mark.parametrize("command", [(), ("data",)])
def test_no_command_prints_the_help_and_nothing_else(home: Path, command: tuple[str, ...]) -> None:
    said = rounds(home, *command)
    assert (said.code, said.err) == (2, "")
    assert said.out.startswith(f"Usage: {' '.join(['rounds', *command])} [OPTIONS] COMMAND [ARGS]...")


def test_a_reader_that_has_gone_is_no_fault(home: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "rounds", "--home", str(home), "history", "--json"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_part_that_is_not_installed_is_named_with_what_to_install(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "rounds.conf.resolve", raising=False)
    monkeypatch.setitem(sys.modules, "hydra", None)
    said = rounds(home, "train", "--json")
    refused(said, 3, "WorldFault", "this command needs hydra, which is not installed")
    assert "pip install 'rounds[train]'" in said.err


def test_a_full_disk_is_the_worlds_fault_and_anything_unforeseen_is_ours(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "somewhere")

    def broken(*_: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("rounds.loop.tracing.models", full)
    refused(rounds(home, "models", "--json"), 3, "WorldFault", "the machine refuses: No space left on device")
    monkeypatch.setattr("rounds.loop.tracing.models", broken)
    said = rounds(home, "models", "--json")
    refused(said, 1, "OurFault", "this is a bug of Rounds: ZeroDivisionError: division by zero")
    assert "Traceback" in said.err
