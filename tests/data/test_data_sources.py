"""Sources by kind: how folders are read, what archives may hold, what arrays must look like."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rounds.core.errors import BadOverride, BadSource, LeakFound
from rounds.core.specs import DataSpec
from rounds.data.archives import Bounds, open_archive
from rounds.data.layout import place
from rounds.data.prepare import prepare
from rounds.data.sources import open_source
from rounds.imaging.decode import decode
from rounds.imaging.packed import Films, stored_png


def png(seed: int) -> bytes:
    return stored_png(np.random.default_rng(seed).integers(0, 256, (12, 12), dtype=np.uint8))


FILES = {
    f"wrap/{split}/{label}/{number}.png": png(100 * place + number)
    for place, (split, label) in enumerate((s, c) for s in ("train", "test") for c in ("normal", "sick"))
    for number in range(6)
}


def tarred(path: Path, files: dict[str, bytes], *, mode: str = "w", extra: tuple[tarfile.TarInfo, ...] = ()) -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in extra:
            tar.addfile(info)
    return path


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def written(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def read_all(source: Path | str) -> dict[str, tuple[str | None, str, bytes]]:
    with open_source(str(source)) as opened:
        return {item.name: (item.split, item.label, item.read()) for item in opened.items}


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("names", "places"),
    [
        (["normal/a.png", "sick/b.png"], {"normal/a.png": (None, "normal"), "sick/b.png": (None, "sick")}),
        (
            ["w/x/normal/a.png", "w/x/sick/b/c.png"],
            {"w/x/normal/a.png": (None, "normal"), "w/x/sick/b/c.png": (None, "sick")},
        ),
        (
            ["chest/train/N/a.jpeg", "chest/Validation/N/b.jpeg", "chest/test/P/c.jpeg"],
            {
                "chest/train/N/a.jpeg": ("train", "N"),
                "chest/Validation/N/b.jpeg": ("val", "N"),
                "chest/test/P/c.jpeg": ("test", "P"),
            },
        ),
        (["test/N/a.png", "test/P/b.png"], {"test/N/a.png": ("test", "N"), "test/P/b.png": ("test", "P")}),
        (["car/a.png", "train/b.png"], {"car/a.png": (None, "car"), "train/b.png": (None, "train")}),
        (["a/1.png"], {"a/1.png": (None, "a")}),
    ],
    ids=["classes", "wrapped", "kaggle", "one-split", "train-is-a-class", "one-class"],
)
def test_layouts_are_recognised(names: list[str], places: dict[str, tuple[str | None, str]]) -> None:
    layout = place([*names, ".DS_Store", "__MACOSX/a/._b.png", "normal/.hidden.png", "normal/Thumbs.db", "README.md"])
    assert (layout.places, layout.refused, layout.notes) == (places, [], [])


def test_images_outside_class_folders_are_refused_and_folders_beside_splits_named() -> None:
    layout = place(["train/a/1.png", "test/a/2.png", "old/a/3.png", "old/4.png", "train/5.png", "6.jpg", "labels.csv"])
    assert layout.places == {"train/a/1.png": ("train", "a"), "test/a/2.png": ("test", "a")}
    assert layout.refused == [
        ("train/5.png", "lies outside the class folders"),
        ("6.jpg", "lies outside the class folders"),
    ]
    assert layout.notes == ["folder 'old' lies beside test, train: its 2 files are left out"]


@pytest.mark.parametrize(
    "make",
    [
        written,
        tarred,
        lambda path, files: tarred(path, files, mode="w:gz"),
        lambda path, files: tarred(path, files, mode="w:bz2"),
        lambda path, files: tarred(path, files, mode="w:xz"),
        zipped,
    ],
    ids=["folder", "data.tar", "data.tar.gz", "data.tar.bz2", "data.tar.xz", "data.zip"],
)
def test_folders_and_archives_give_the_same_films(
    tmp_path: Path, make: Callable[[Path, dict[str, bytes]], Path], request: pytest.FixtureRequest
) -> None:
    source = make(tmp_path / request.node.callspec.id, FILES)
    assert read_all(source) == {name: (*name.split("/")[1:3], data) for name, data in FILES.items()}
    spec = DataSpec(source=str(source), name="set", min_per_class=2)
    done = prepare(spec, folder=tmp_path / "out")
    assert done.dataset.splits == {"train": 8, "val": 2, "calibration": 2, "test": 12}
    assert done.dataset.digest == "2c71e1910f66f97e6845c6495442c560c6b91a08f4adaedac24ea5cef65a8d87"


def test_linked_folders_are_read_once(tmp_path: Path) -> None:
    written(tmp_path / "far", {"1.png": png(1)})
    root = written(tmp_path / "in", {"normal/2.png": png(2)})
    (root / "sick").symlink_to(tmp_path / "far")
    (root / "normal" / "loop").symlink_to(root)
    assert sorted(read_all(root)) == ["normal/2.png", "sick/1.png"]


def test_what_is_not_a_plain_file_is_refused(tmp_path: Path) -> None:
    root = written(tmp_path / "in", {"normal/1.png": png(1), "sick/2.png": png(2)})
    os.mkfifo(root / "sick" / "pipe.png")
    (root / "sick" / "gone.png").symlink_to(root / "nowhere")
    with open_source(str(root)) as opened:
        assert sorted(opened.refused) == [
            ("sick/gone.png", "No such file or directory"),
            ("sick/pipe.png", "not a plain file"),
        ]
        assert opened.total == 2


def test_a_file_that_vanishes_while_reading_is_refused(tmp_path: Path) -> None:
    root = written(tmp_path / "in", FILES)
    gone = root / "wrap/train/normal/5.png"
    spec = DataSpec(source=str(root), name="set", min_per_class=2)
    done = prepare(spec, folder=tmp_path / "out", progress=lambda *_: gone.unlink(missing_ok=True))
    assert done.refused == (("wrap/train/normal/5.png", "No such file or directory"),)


def test_an_archive_that_climbs_out_is_refused_naming_each_member(tmp_path: Path) -> None:
    path = tarred(
        tmp_path / "bad.tar",
        {**FILES, "../../evil.png": b"x", "/etc/cron.d/evil": b"x", "a\\..\\b.png": b"x", "C:/b.png": b"x"},
        extra=(
            special("wrap/link.png", tarfile.SYMTYPE, "/etc/passwd"),
            special("wrap/hard.png", tarfile.LNKTYPE, "wrap/train/normal/1.png"),
            special("wrap/device", tarfile.CHRTYPE),
            special("wrap/pipe", tarfile.FIFOTYPE),
            special("wrap/sparse", tarfile.GNUTYPE_SPARSE),
        ),
    )
    with pytest.raises(BadSource) as raised:
        prepare(DataSpec(source=str(path), name="set"), folder=tmp_path / "out")
    expected = "expected a plain file inside the archive's own folder. Pack the images again, as plain files"
    assert raised.value.exit_code == 2
    assert str(raised.value).splitlines() == [
        f"cannot make a data set of {path}",
        f"  ../../evil.png: a path that climbs out; {expected}",
        f"  /etc/cron.d/evil: an absolute path; {expected}",
        f"  a\\..\\b.png: a path that climbs out; {expected}",
        f"  C:/b.png: an absolute path; {expected}",
        f"  wrap/link.png: a link to '/etc/passwd'; {expected}",
        f"  wrap/hard.png: a link to 'wrap/train/normal/1.png'; {expected}",
        f"  wrap/device: a device or other special file; {expected}",
        f"  wrap/pipe: a device or other special file; {expected}",
        f"  wrap/sparse: a sparse file; {expected}",
    ]
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "evil.png").exists()


def test_a_zip_that_climbs_out_is_refused_naming_each_member(tmp_path: Path) -> None:
    path = zipped(tmp_path / "bad.zip", {**FILES, "../evil.png": b"x"})
    with zipfile.ZipFile(path, "a") as archive:
        for name, mode in (("wrap/link.png", 0o120777), ("wrap/device", 0o020666)):
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, "/etc/passwd")
        archive.writestr("wrap/secret.png", b"x")
    data = bytearray(path.read_bytes())
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.rfind(header) + flags] |= 1
    path.write_bytes(data)
    with pytest.raises(BadSource) as raised, open_archive(path):
        pass
    assert [(fault.where, fault.what) for fault in raised.value.faults] == [
        ("../evil.png", "a path that climbs out"),
        ("wrap/link.png", "a link"),
        ("wrap/device", "a device or other special file"),
        ("wrap/secret.png", "an encrypted file"),
    ]


@pytest.mark.parametrize("make", [tarred, zipped], ids=["x.tar", "x.zip"])
def test_bounds_on_members_and_bytes_hold(
    tmp_path: Path, make: Callable[[Path, dict[str, bytes]], Path], request: pytest.FixtureRequest
) -> None:
    path = make(tmp_path / request.node.callspec.id, FILES)
    with (
        pytest.raises(BadSource, match="too many members; expected at most 20"),
        open_archive(path, Bounds(members=20)),
    ):
        pass
    with (
        pytest.raises(BadSource, match="too large when unpacked; expected at most 1,000"),
        open_archive(path, Bounds(total=1000)),
    ):
        pass


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("suffix", ["tar", "zip"])
def test_a_name_that_occurs_twice_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    if suffix == "tar":
        tarred(path, FILES)
        tarred(path, {"./wrap/train/normal/1.png": b"other"}, mode="a")
    else:
        zipped(path, FILES)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("wrap/train/normal/1.png", b"other")
    with pytest.raises(
        BadSource, match=r"wrap/train/normal/1\.png: the name occurs twice; expected each name once; got 2"
    ):
        read_all(path)


@pytest.mark.parametrize("keep", [0, 100, 3000, 8192, 20_000])
@pytest.mark.parametrize(
    "make", [tarred, lambda p, f: tarred(p, f, mode="w:gz"), zipped], ids=["x.tar", "x.tar.gz", "x.zip"]
)
def test_archives_that_end_early_are_refused(
    tmp_path: Path, make: Callable[[Path, dict[str, bytes]], Path], keep: int, request: pytest.FixtureRequest
) -> None:
    path = make(tmp_path / request.node.callspec.id.split("-")[0], FILES)
    os.truncate(path, min(keep, path.stat().st_size - 20))
    with pytest.raises(BadSource, match=r"the archive is broken; expected a whole \.tar or"):
        read_all(path)


def test_a_garbled_header_is_not_the_end_of_an_archive(tmp_path: Path) -> None:
    path = tarred(tmp_path / "x.tar", FILES)
    data = bytearray(path.read_bytes())
    data[1024:1536] = b"\xff" * 512
    path.write_bytes(data)
    with pytest.raises(BadSource, match="no member and no end of the archive at byte 1,024"):
        read_all(path)


def test_a_tail_without_end_is_refused(tmp_path: Path) -> None:
    path = tarred(tmp_path / "x.tar", FILES)
    os.truncate(path, 70_000_000)
    with pytest.raises(BadSource, match="more than 67,108,864 bytes behind the end of the archive"):
        read_all(path)


def test_a_damaged_member_of_a_zip_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", FILES)
    data = bytearray(path.read_bytes())
    data[80] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(BadSource, match="the archive is broken"):
        read_all(path)


def test_a_header_that_claims_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    info = tarfile.TarInfo("huge")
    info.type, info.size = tarfile.XHDTYPE, 1 << 33
    path = tmp_path / "x.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT))
    with path.open("r+b") as file:
        file.truncate((1 << 33) + 2048)
    with pytest.raises(BadSource, match="a header claims 8,589,934,592 bytes"):
        read_all(path)


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("", "no such file or folder"),
        ("nowhere/at/all", "no such file or folder"),
        ("dicom/films", "no such file or folder"),
    ],
)
def test_sources_that_are_not_there_are_refused(source: str, what: str) -> None:
    with pytest.raises(BadSource, match=f"{what}; expected a folder, one of .tar, .tar.gz") as raised:
        open_source(source)
    assert raised.value.exit_code == 2


def test_an_address_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(BadSource, match=r"no such kind of address; expected a path, or an address such as s3://"):
        open_source("nosuch://bucket/films")


@pytest.mark.parametrize(
    ("source", "labels", "what"),
    [
        ("dicom:nowhere", None, "nowhere: no such folder; expected a folder of DICOM files"),
        ("dicom:s3://films/tree", None, "no such folder; .* Copy it to a folder of this machine first"),
        ("dicom:IN", "nowhere.csv", "nowhere.csv: no such table of labels; expected one of .csv, .tsv, .parquet"),
        ("IN", "labels.csv", "labels are for DICOM films; .* Give the table itself as the source, with this folder"),
    ],
)
def test_labels_belong_to_a_folder_of_dicom_files(tmp_path: Path, source: str, labels: str | None, what: str) -> None:
    root = written(tmp_path / "in", FILES)
    with pytest.raises(BadSource, match=what), open_source(source.replace("IN", str(root)), DataSpec(labels=labels)):
        pass


def test_other_files_are_refused(tmp_path: Path) -> None:
    written(tmp_path, {"films.rar": b"Rar!"})
    with pytest.raises(BadSource, match=r"not a kind of source we take; expected .*; got \.rar"):
        open_source(str(tmp_path / "films.rar"))


# ---------------------------------------------------------------- arrays


def arrays(n: int, seed: int = 0, shape: tuple[int, ...] = (8, 8)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def labels(n: int, classes: int = 2) -> np.ndarray:
    return (np.arange(n) % classes).astype(np.uint8)[:, None]


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3), (8, 8, 1)], ids=str)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["plain", "compressed"])
def test_arrays_become_the_same_pixels(tmp_path: Path, shape: tuple[int, ...], save: Callable[..., None]) -> None:
    images = arrays(30, shape=shape)
    save(tmp_path / "x.npz", train_images=images, train_labels=labels(30, 12), ignored=np.zeros(3))
    found = read_all(tmp_path / "x.npz")
    assert list(found) == [f"train_images[{number}]" for number in range(30)]
    for number, (split, label, data) in enumerate(found.values()):
        assert (split, label) == ("train", str(number % 12))
        assert np.array_equal(decode(data), images[number].reshape(8, 8, -1).squeeze())


def test_any_subset_of_splits_will_do(tmp_path: Path) -> None:
    path = tmp_path / "PneumoniaMNIST_test.npz"
    np.savez(path, test_images=arrays(20), test_labels=labels(20).ravel().astype(np.int64))
    done = prepare(DataSpec(source=str(path), name="set"), folder=tmp_path / "out")
    assert done.dataset.classes == ("normal", "pneumonia")
    assert done.dataset.splits == {"test": 20}
    assert {film.label for film in Films(done.dataset.path)} == {"normal", "pneumonia"}


def test_copies_across_train_and_test_arrays_are_a_leak(tmp_path: Path) -> None:
    train, test = arrays(40), arrays(20, 1)
    test[4] = train[10]
    np.savez(tmp_path / "x.npz", train_images=train, train_labels=labels(40), test_images=test, test_labels=labels(20))
    with pytest.raises(LeakFound) as raised:
        prepare(DataSpec(source=str(tmp_path / "x.npz"), name="set"), folder=tmp_path / "out")
    assert raised.value.leaks == (("train_images[10]", "test_images[4]"),)


def test_every_wrong_array_is_named(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "x.npz",
        train_images=arrays(4).astype(np.float32),
        train_labels=np.zeros((4, 3), np.int64),
        val_images=arrays(4),
        val_labels=labels(5),
        test_images=np.array([{"a": 1}], dtype=object),
        calibration_labels=np.array([0.5]),
        calibration_images=np.asfortranarray(arrays(1, shape=(4, 5))),
    )
    with pytest.raises(BadSource) as raised:
        read_all(tmp_path / "x.npz")
    taken = "uint8 (n, height, width) or (n, height, width, 3)"
    assert str(raised.value).splitlines()[1:] == [
        f"  train_images: wrong shape or kind; expected {taken}; got float32 (4, 8, 8)",
        "  train_labels: wrong shape or kind; expected whole numbers (n,) or (n, 1); got int64 (4, 3)",
        "  val: images and labels differ in number; expected one label an image; got 4 images and 5 labels",
        "  calibration_images: columns come first; expected an array in C order; got uint8 (1, 4, 5). Save "
        "np.ascontiguousarray of it",
        "  calibration_labels: wrong shape or kind; expected whole numbers (n,) or (n, 1); got float64 (1,)",
        "  test_labels: an array is missing; expected test_images and test_labels",
        f"  test_images: a pickled array is never loaded; expected {taken}; got object (1,)",
    ]


def test_an_array_file_without_splits_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=arrays(3))
    with pytest.raises(BadSource, match=r"x\.npz: no images and labels; expected train_images and train_labels"):
        read_all(tmp_path / "x.npz")


def npz(path: Path, **members: bytes) -> Path:
    return zipped(path, {f"{key}.npy": data for key, data in members.items()})


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    ("images", "values", "what"),
    [
        (b"text", saved(labels(4)), "train_images: the array is broken"),
        (saved(arrays(4))[:-10], saved(labels(4)), "train_images: .* got 54 bytes where 64 were announced"),
        (saved(arrays(4)), saved(labels(4))[:-1], "train_labels: .* got 3 bytes where 4 were announced"),
        (b"\x93NUMPY\x03\x00" + saved(arrays(4))[8:], saved(labels(4)), "array format 3.0 is not taken"),
    ],
    ids=["not-an-array", "short-images", "short-labels", "other-format"],
)
def test_broken_arrays_are_named(tmp_path: Path, images: bytes, values: bytes, what: str) -> None:
    with pytest.raises(BadSource, match=what):
        read_all(npz(tmp_path / "x.npz", train_images=images, train_labels=values))


def test_a_file_that_is_no_npz_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"text")
    with pytest.raises(
        BadSource, match=r"x\.npz: the array is broken; expected a whole \.npz .*; got File is not a zip"
    ):
        read_all(tmp_path / "x.npz")


# ---------------------------------------------------------------- phantoms


def test_phantoms_are_drawn_with_options_and_known_subjects(tmp_path: Path) -> None:
    source = "phantom:n=60,seed=3,size=32,gamma=1.3,blur=0.5,noise=0.05,exposure=0.9,crop=0.02,positive=0.4"
    done = prepare(DataSpec(source=source, name="set"), folder=tmp_path)
    plain = prepare(DataSpec(source="phantom:n=60,seed=3,size=32", name="set"), folder=tmp_path)
    opened = Films(done.dataset.path)
    assert (done.taken, done.dataset.subjects_known) == (60, True)
    assert len({film.subject for film in opened}) < 60
    assert decode(opened.bytes(0)).shape == (32, 32)
    assert done.dataset.digest != plain.dataset.digest
    assert (
        plain.dataset.digest
        == prepare(DataSpec(source="phantom:[size=32, seed=3, n=60]", name="set"), folder=tmp_path).dataset.digest
    )


def test_the_default_phantoms_are_4000() -> None:
    for source in ("phantom", "phantom:"):
        with open_source(source) as opened:
            assert opened.total == 4000
            assert next(opened.items).read()[:4] == b"\x89PNG"


def test_wrong_phantom_options_are_all_named() -> None:
    with pytest.raises(BadOverride) as raised, open_source("phantom:gama=1.2,n=many,size=5,blur=,zzz"):
        pass
    known = "n, seed, size, positive, exposure, gamma, blur, noise, crop"
    assert str(raised.value).splitlines() == [
        "cannot draw phantom:gama=1.2,n=many,size=5,blur=,zzz",
        f"  gama: no such phantom option; expected one of {known}; got gama. Did you mean gamma?",
        "  n: wrong phantom option; expected a whole number from 8 to 1,000,000; got 'many'",
        "  size: wrong phantom option; expected a whole number from 16 to 1,024; got '5'",
        "  blur: wrong phantom option; expected a number from 0.0 to 20.0; got ''",
        f"  zzz: no such phantom option; expected one of {known}; got zzz",
    ]
