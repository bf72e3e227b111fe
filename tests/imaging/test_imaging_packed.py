"""Data sets on disk: named by content, whole or absent, verified when read."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rounds.core.errors import BadLabel, BadSource, DamagedData, NotWritable, UnknownId
from rounds.core.specs import Fit, ImagingSpec
from rounds.imaging.decode import decode
from rounds.imaging.fit import to_pixels
from rounds.imaging.packed import Film, Films, film_writer, open_dataset, stored_png, write_films

CLASSES = ("normal", "pneumonia")


def image(seed: int, shape: tuple[int, ...] = (12, 10)) -> bytes:
    return stored_png(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def films(n: int = 24) -> list[Film]:
    splits = ("train", "val", "calibration", "test")
    return [
        Film(image(i), CLASSES[i % 2], f"s{i // 2}", splits[i % 4], f"{CLASSES[i % 2]}/{i}.png", {"site": f"x{i % 3}"})
        for i in range(n)
    ]


def test_the_same_films_in_any_order_and_packing_give_the_same_digest(tmp_path: Path) -> None:
    one = write_films(tmp_path / "one", "chest", CLASSES, films(), subjects_known=True, notes=["made up"])
    other = write_films(tmp_path / "two", "chest", CLASSES, films()[::-1], subjects_known=True, pack_bytes=1000)
    assert one.digest == other.digest == "7a801b3b043bb806d576cb3c91aaabdbfd7c7b9306bd1976cb7c3c7f7b91da85"
    assert len(list(other.path.glob("pack-*.bin"))) > len(list(one.path.glob("pack-*.bin"))) == 1
    assert [film.name for film in Films(one.path)] == [film.name for film in Films(other.path)]


@pytest.mark.parametrize(
    "change",
    [
        {"data": image(99)},
        {"label": "pneumonia"},
        {"subject": "somebody else"},
        {"split": "test"},
        {"name": "another.png"},
        {"attributes": {"site": "y"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_any_change_of_content_changes_the_digest(tmp_path: Path, change: dict[str, object]) -> None:
    before = films()
    after = [replace(before[0], **change), *before[1:]]
    one = write_films(tmp_path, "chest", CLASSES, before, subjects_known=True)
    assert write_films(tmp_path, "chest", CLASSES, after, subjects_known=True).digest != one.digest


def test_the_folder_says_what_it_holds(tmp_path: Path) -> None:
    dataset = write_films(tmp_path, "chest", CLASSES, films(), subjects_known=False, notes=["one image = one subject"])
    assert dataset.path == tmp_path / dataset.digest
    assert json.loads((dataset.path / "dataset.json").read_text()) == {
        "name": "chest",
        "digest": dataset.digest,
        "classes": ["normal", "pneumonia"],
        "splits": {"train": 6, "val": 6, "calibration": 6, "test": 6},
        "images": 24,
        "subjects": 12,
        "format": 1,
        "bytes": sum(len(film.data) for film in films()),
        "subjects_known": False,
        "notes": ["one image = one subject"],
    }
    assert sorted(path.name for path in dataset.path.iterdir()) == ["dataset.json", "manifest.parquet", "pack-0000.bin"]
    assert open_dataset(dataset.path) == dataset
    assert [path.name for path in tmp_path.iterdir()] == [dataset.digest]


def test_films_come_back_as_they_were_written(tmp_path: Path) -> None:
    opened = Films(write_films(tmp_path, "chest", CLASSES, films(), subjects_known=True).path)
    assert len(opened) == 24
    assert opened.classes == CLASSES
    assert sorted(opened, key=lambda film: film.name) == sorted(films(), key=lambda film: film.name)
    assert pickle.loads(pickle.dumps(opened)).film(3) == opened.film(3)


def test_rows_of_a_split_point_into_the_whole(tmp_path: Path) -> None:
    opened = Films(write_films(tmp_path, "chest", CLASSES, films(), subjects_known=True).path)
    rows = opened.rows("calibration")
    assert rows.index.tolist() == list(range(12, 18))
    assert rows.labels.tolist() == [0] * 6
    assert [opened.film(index).name for index in rows.index] == rows.names
    assert [opened.film(index).subject for index in rows.index] == rows.subjects
    assert rows.digests == sorted(rows.digests)
    assert len(opened.rows()) == 24
    assert len(opened.rows("nowhere")) == 0


@pytest.mark.parametrize("spec", [ImagingSpec(8), ImagingSpec(16, 3, Fit.PAD)], ids=["gray", "rgb-pad"])
def test_pixels_are_those_of_each_film_and_read_only(tmp_path: Path, spec: ImagingSpec) -> None:
    opened = Films(write_films(tmp_path, "chest", CLASSES, films(), subjects_known=True).path)
    pixels = opened.pixels(spec)
    assert isinstance(pixels, np.memmap)
    assert np.array_equal(pixels, [to_pixels(film.data, spec) for film in opened])
    with pytest.raises(ValueError, match="read-only"):
        pixels[0, 0, 0, 0] = 1
    (cache,) = (opened.dataset.path / "cache").iterdir()
    written = cache.stat().st_mtime_ns
    opened.pixels(spec)
    assert cache.stat().st_mtime_ns == written


def test_a_cache_that_was_cut_short_is_built_again(tmp_path: Path) -> None:
    opened = Films(write_films(tmp_path, "chest", CLASSES, films(), subjects_known=True).path)
    expected = np.array(opened.pixels(ImagingSpec(8)))
    (cache,) = (opened.dataset.path / "cache").iterdir()
    os.truncate(cache, cache.stat().st_size - 100)
    assert np.array_equal(opened.pixels(ImagingSpec(8)), expected)


def build_cache(path: Path, out: Path) -> None:
    out.write_bytes(Films(path).pixels(ImagingSpec(32)).tobytes())


def test_processes_that_build_the_cache_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    dataset = write_films(tmp_path, "chest", CLASSES, films(200), subjects_known=True)
    context = multiprocessing.get_context("spawn")
    outs = [tmp_path / "one.bin", tmp_path / "two.bin"]
    workers = [context.Process(target=build_cache, args=(dataset.path, out)) for out in outs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    expected = np.stack([to_pixels(film.data, ImagingSpec(32)) for film in Films(dataset.path)]).tobytes()
    assert [out.read_bytes() for out in outs] == [expected, expected]
    assert len(list((dataset.path / "cache").iterdir())) == 1


def test_writing_holds_one_film_at_a_time(tmp_path: Path) -> None:
    blob = os.urandom(1_000_000)
    many = (
        Film(number.to_bytes(4, "big") + blob, CLASSES[number % 2], "", "train", f"{number}") for number in range(100)
    )
    tracemalloc.start()
    write_films(tmp_path, "large", CLASSES, many, subjects_known=False, pack_bytes=30_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


def test_bytes_that_occur_twice_are_stored_once(tmp_path: Path) -> None:
    twice = [replace(film, name=f"copy of {film.name}") for film in films()] + films()
    dataset = write_films(tmp_path, "chest", CLASSES, twice, subjects_known=True)
    assert len(Films(dataset.path)) == 48
    assert (dataset.path / "pack-0000.bin").stat().st_size == sum(len(film.data) for film in films())


def test_what_is_already_there_is_kept_and_what_is_damaged_is_replaced(tmp_path: Path) -> None:
    dataset = write_films(tmp_path, "chest", CLASSES, films(), subjects_known=True)
    pack = dataset.path / "pack-0000.bin"
    before = pack.stat().st_ino
    assert write_films(tmp_path, "chest", CLASSES, films(), subjects_known=True) == dataset
    assert pack.stat().st_ino == before
    pack.write_bytes(bytes(pack.stat().st_size))
    assert write_films(tmp_path, "chest", CLASSES, films(), subjects_known=True) == dataset
    assert sorted(Films(dataset.path), key=lambda film: film.name) == sorted(films(), key=lambda film: film.name)


def test_a_part_left_by_a_killed_process_is_swept_after_a_day(tmp_path: Path) -> None:
    for name, age in ((".old.part", 100_000), (".new.part", 10)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pack-0000.bin").write_bytes(b"x")
        for path in (tmp_path / name / "pack-0000.bin", tmp_path / name):
            os.utime(path, (time.time() - age,) * 2)
    write_films(tmp_path, "chest", CLASSES, films(), subjects_known=True)
    assert [path.name for path in tmp_path.glob(".*.part")] == [".new.part"]


def test_a_flipped_bit_in_a_film_is_named(tmp_path: Path) -> None:
    dataset = write_films(tmp_path, "chest", CLASSES, films(), subjects_known=True)
    pack = dataset.path / "pack-0000.bin"
    data = bytearray(pack.read_bytes())
    data[-20] ^= 1
    pack.write_bytes(data)
    opened = Films(dataset.path)
    last = opened.rows().names.index(films()[-1].name)
    with pytest.raises(
        DamagedData, match=r"pack-0000.bin: the data set is damaged; expected the bytes of pneumonia/23"
    ):
        opened.film(last)
    with pytest.raises(DamagedData, match=r"pneumonia/23\.png"):
        opened.pixels(ImagingSpec(8))
    assert list((dataset.path / "cache").iterdir()) == []
    pack.unlink()
    with pytest.raises(DamagedData, match="No such file or directory"):
        opened.bytes(0)


def test_a_manifest_of_other_films_is_refused(tmp_path: Path) -> None:
    one = write_films(tmp_path, "chest", CLASSES, films(), subjects_known=True)
    two = write_films(tmp_path, "chest", CLASSES, films(20), subjects_known=True)
    (one.path / "manifest.parquet").write_bytes((two.path / "manifest.parquet").read_bytes())
    with pytest.raises(
        DamagedData, match=f"rows with the digest {one.digest}; got {two.digest}. Prepare the source"
    ) as e:
        open_dataset(one.path)
    assert e.value.exit_code == 3
    (one.path / "manifest.parquet").write_bytes(b"PAR1")
    with pytest.raises(DamagedData, match=r"manifest\.parquet: the data set is damaged; expected a manifest of films"):
        open_dataset(one.path)


@pytest.mark.parametrize("text", [None, b"{", b"{}", b"[]", b'"text"'])
def test_a_damaged_description_is_refused(tmp_path: Path, text: bytes | None) -> None:
    dataset = write_films(tmp_path, "chest", CLASSES, films(), subjects_known=True)
    told = dataset.path / "dataset.json"
    told.unlink() if text is None else told.write_bytes(text)
    with pytest.raises(DamagedData, match=r"dataset\.json: the data set is damaged; expected a description"):
        open_dataset(dataset.path)


def test_no_data_set_is_an_unknown_id(tmp_path: Path) -> None:
    with pytest.raises(UnknownId, match=r"no data set folder is here\. Prepare the source again"):
        open_dataset(tmp_path / "nothing")


def test_labels_outside_the_classes_are_all_named_and_nothing_stays(tmp_path: Path) -> None:
    wrong = [*films(), replace(films()[0], label="flu", name="a.png"), replace(films()[1], split="dev", name="b.png")]
    with pytest.raises(BadLabel) as raised:
        write_films(tmp_path, "chest", CLASSES, wrong, subjects_known=True)
    assert str(raised.value).splitlines() == [
        "labels that name no class",
        "  a.png: no such class; expected one of normal, pneumonia; got 'flu'",
        "  b.png: no such split; expected one of train, val, calibration, test; got 'dev'",
    ]
    assert list(tmp_path.iterdir()) == []


def test_unknown_splits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match="splits that do not exist"):
        write_films(tmp_path, "chest", CLASSES, [replace(films()[0], split="dev")], subjects_known=True)


def test_an_empty_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match="the data set would be empty; expected at least one film"):
        write_films(tmp_path, "chest", CLASSES, [], subjects_known=True)


def test_a_folder_that_cannot_be_written_is_the_worlds_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotWritable, match="Not a directory; expected a folder with room to write") as raised:
        write_films(tmp_path / "file" / "data", "chest", CLASSES, films(), subjects_known=True)
    assert raised.value.exit_code == 3


def test_a_cache_that_cannot_be_written_is_the_worlds_fault(tmp_path: Path) -> None:
    dataset = write_films(tmp_path, "chest", CLASSES, films(), subjects_known=True)
    (dataset.path / "cache").write_bytes(b"")
    with pytest.raises(NotWritable, match="cannot write the pixel cache"):
        Films(dataset.path).pixels(ImagingSpec(8))


def test_an_unfinished_writer_leaves_nothing(tmp_path: Path) -> None:
    with film_writer(tmp_path) as writer:
        writer.keep(b"bytes of a film")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(1, 1), (28, 28), (300, 301), (5, 7, 3), (200, 150, 3)])
def test_a_stored_png_decodes_to_its_pixels(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(decode(stored_png(pixels)), pixels)
