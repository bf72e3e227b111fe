"""MedMNIST by name: what is published, how it is fetched over a connection that breaks, and whose bytes are refused."""

from __future__ import annotations

import hashlib
import io
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from tests.support.web import Web, web

from rounds.core.errors import BadSource, DamagedData, StoreAway
from rounds.core.specs import DataSpec
from rounds.data import medmnist
from rounds.data.medmnist import OFFICIAL, SETS, Official, class_names, fetch
from rounds.data.prepare import prepare

NAME = "pneumoniamnist_64"
FILE = f"{NAME}.npz"


def made_file() -> bytes:
    images = np.random.default_rng(0).integers(0, 256, (60, 64, 64), dtype=np.uint8)
    out = io.BytesIO()
    np.savez(out, train_images=images, train_labels=(np.arange(60) % 2).astype(np.uint8)[:, None])
    return out.getvalue()


DATA = made_file()


@pytest.fixture(autouse=True)
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these tests serve counts as the official file of 64 pixels; nothing is waited for, nothing leaves."""
    told = SETS["pneumoniamnist"]
    ours = Official({**told.md5, 64: hashlib.md5(DATA).hexdigest()}, told.classes)
    monkeypatch.setitem(SETS, "pneumoniamnist", ours)
    monkeypatch.setattr(medmnist, "_PAUSE_S", 0.0)
    monkeypatch.setattr(medmnist, "OFFICIAL", "http://127.0.0.1:9/records")


@pytest.fixture
def served() -> Iterator[Web]:
    with web({FILE: DATA}) as state:
        yield state


def test_eleven_sets_are_known_with_a_sum_for_each_size() -> None:
    assert OFFICIAL == "https://zenodo.org/records/10519652/files"
    assert {name: len(official.classes) for name, official in SETS.items()} == {
        "pathmnist": 9, "dermamnist": 7, "octmnist": 4, "pneumoniamnist": 2, "retinamnist": 5, "breastmnist": 2,
        "bloodmnist": 8, "tissuemnist": 8, "organamnist": 11, "organcmnist": 11, "organsmnist": 11,
    }  # fmt: skip
    sums = [md5 for official in SETS.values() for md5 in official.md5.values()]
    assert len(set(sums)) == len(sums) == 44
    assert all(re.fullmatch(r"[0-9a-f]{32}", md5) for md5 in sums)
    assert SETS["pneumoniamnist"].md5[28] == "28209eda62fecd6e6a2d98b1501bb15f"
    assert SETS["pneumoniamnist"].md5[224] == "d6a3c71de1b945ea11211b03746c1fe1"


def test_a_set_is_fetched_once_and_prepared_with_its_names(served: Web, tmp_path: Path) -> None:
    spec = DataSpec(f"medmnist:{NAME}", "set", min_per_class=1)
    heard: list[tuple[int, int]] = []
    done = prepare(
        spec, folder=tmp_path / "data", mirror=f"{served.url}/files/..", progress=lambda *told: heard.append(told)
    )
    again = prepare(spec, folder=tmp_path / "data", mirror=served.url)
    assert done.dataset.classes == ("normal", "pneumonia")
    assert done.taken == 60
    assert again.dataset.digest == done.dataset.digest
    assert len(served.asked) == 1
    assert (len(DATA), len(DATA)) in heard
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [FILE]


def test_a_broken_transfer_goes_on_where_it_stopped(served: Web, tmp_path: Path) -> None:
    served.breaks += [100_000, 50_000]
    path = fetch(NAME, cache=tmp_path, mirror=served.url)
    assert path.read_bytes() == DATA
    assert [wanted for _, wanted in served.asked] == ["", "bytes=100000-", "bytes=150000-"]


def test_what_an_earlier_command_brought_is_kept_and_gone_on_with(served: Web, tmp_path: Path) -> None:
    served.breaks += [100_000, 0, 0, 0, 0]
    with pytest.raises(StoreAway) as raised:
        fetch(NAME, cache=tmp_path, mirror=served.url)
    assert raised.value.exit_code == 3
    assert str(raised.value).splitlines()[0] == f"cannot get {served.url}/{FILE}"
    assert "the transfer broke off; expected the whole file; got RemoteProtocolError" in str(raised.value)
    assert "Run the command again: it goes on where this one stopped" in str(raised.value)
    assert (tmp_path / f".{FILE}.part").stat().st_size == 100_000
    served.asked.clear()
    assert fetch(NAME, cache=tmp_path, mirror=served.url).read_bytes() == DATA
    assert served.asked == [(f"/{FILE}", "bytes=100000-")]


def test_a_transfer_that_was_whole_but_not_renamed_is_not_repeated(served: Web, tmp_path: Path) -> None:
    (tmp_path / f".{FILE}.part").write_bytes(DATA)
    assert fetch(NAME, cache=tmp_path, mirror=served.url).read_bytes() == DATA
    assert served.asked == [(f"/{FILE}", f"bytes={len(DATA)}-")]


def test_a_server_that_cannot_go_on_begins_anew(served: Web, tmp_path: Path) -> None:
    served.ranges = False
    served.breaks.append(100_000)
    assert fetch(NAME, cache=tmp_path, mirror=served.url).read_bytes() == DATA


def test_a_server_that_is_busy_is_asked_again_and_one_that_refuses_is_not(served: Web, tmp_path: Path) -> None:
    served.refuses += [503, 502]
    assert fetch(NAME, cache=tmp_path, mirror=served.url).read_bytes() == DATA
    served.asked.clear()
    with pytest.raises(StoreAway, match="the server refuses; expected the file; got 404 Not Found"):
        fetch("pneumoniamnist_128", cache=tmp_path, mirror=served.url)
    assert len(served.asked) == 1


def test_a_wrong_checksum_is_refused_by_name_and_the_bytes_are_dropped(served: Web, tmp_path: Path) -> None:
    served.files = {FILE: DATA[:-1] + b"x"}
    with pytest.raises(DamagedData) as raised:
        fetch(NAME, cache=tmp_path, mirror=served.url)
    expected, got = hashlib.md5(DATA).hexdigest(), hashlib.md5(DATA[:-1] + b"x").hexdigest()
    assert raised.value.exit_code == 3
    assert str(raised.value).splitlines() == [
        f"{served.url}/{FILE} has another checksum than the official file",
        f"  {served.url}/{FILE}: not the official file; expected md5 {expected}; got md5 {got}. Fetch it again from "
        "its publisher; to take this very file, give its path as the source",
    ]
    served.files = {FILE: DATA}
    assert fetch(NAME, cache=tmp_path, mirror=served.url).read_bytes() == DATA


def test_a_file_that_rotted_in_the_cache_is_fetched_again(served: Web, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(DATA[:-1] + b"x")
    assert fetch(NAME, cache=tmp_path, mirror=served.url).read_bytes() == DATA


def test_two_that_fetch_at_once_ask_once(served: Web, tmp_path: Path) -> None:
    threads = [
        threading.Thread(target=fetch, args=(NAME,), kwargs={"cache": tmp_path, "mirror": served.url}) for _ in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (tmp_path / FILE).read_bytes() == DATA
    assert len(served.asked) == 1


def test_a_folder_is_a_mirror_and_nothing_is_copied(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(DATA)
    assert fetch(NAME, cache=tmp_path / "cache", mirror=str(tmp_path)) == tmp_path / FILE
    assert not (tmp_path / "cache").exists()
    with pytest.raises(StoreAway, match=r"breastmnist\.npz: no such file in the mirror"):
        fetch("breastmnist", cache=tmp_path / "cache", mirror=str(tmp_path))


def test_whatever_fsspec_speaks_is_a_mirror_and_is_gone_on_with(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file(f"/mirror/sets/{FILE}", DATA)
    (tmp_path / f".{FILE}.part").write_bytes(DATA[:70_000])
    assert fetch(NAME, cache=tmp_path, mirror="memory://mirror/sets/").read_bytes() == DATA


def test_a_recombined_file_is_not_the_official_one_but_is_taken_by_its_path(datasets: Path, tmp_path: Path) -> None:
    theirs = datasets / "pneumoniamnist_trainval.npz"
    (tmp_path / "pneumoniamnist.npz").symlink_to(theirs)
    with pytest.raises(DamagedData, match="not the official file; expected md5 28209eda62fecd6e6a2d98b1501bb15f"):
        fetch("pneumoniamnist", cache=tmp_path / "cache", mirror=str(tmp_path))
    done = prepare(DataSpec(str(theirs), "set"), folder=tmp_path / "data")
    assert done.dataset.classes == ("normal", "pneumonia")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("chestmnist", "this set is not taken; expected one of pathmnist, .*; got its films bear up to 14 findings"),
        ("organmnist3d_64", "this set is not taken; .* its images are volumes"),
        ("pneumonia_mnist", "no such MedMNIST set"),
        ("pneumoniamnst", "no such MedMNIST set; .* Did you mean medmnist:pneumoniamnist?"),
        ("bloodmnist_32", "no such size; expected bloodmnist, bloodmnist_64, bloodmnist_128 or bloodmnist_224; got 32"),
        ("../bloodmnist", "no such MedMNIST set"),
        ("", "no such MedMNIST set"),
    ],
)
def test_names_that_are_none_are_refused_with_the_reason(tmp_path: Path, name: str, what: str) -> None:
    with pytest.raises(BadSource, match=what):
        fetch(name, cache=tmp_path)


@pytest.mark.parametrize(
    ("file", "labels", "classes"),
    [
        (
            "octmnist_224.npz",
            {"0", "3"},
            ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
        ),
        ("my_PneumoniaMNIST_test.npz", {"0", "1"}, ("normal", "pneumonia")),
        ("pneumonia.npz", {"0", "1", "2"}, ()),
        ("digits.npz", {"0", "1"}, ()),
    ],
)
def test_an_array_file_that_bears_the_name_of_a_set_gets_its_names(
    file: str, labels: set[str], classes: tuple[str, ...]
) -> None:
    assert class_names(file, frozenset(labels)) == classes
