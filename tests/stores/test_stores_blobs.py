"""Files that are whole or absent, and a disk that does not do as it is asked."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rounds.core.errors import DamagedData, NotWritable, StoreAway
from rounds.core.ids import digest
from rounds.stores.blobs import FileBlobs

PUT = """
import sys
from pathlib import Path
from rounds.stores.blobs import FileBlobs
blobs = FileBlobs(Path(sys.argv[1]))
for i in range(int(sys.argv[2])):
    print(blobs.put(i.to_bytes(4, "big") * int(sys.argv[3])), flush=True)
"""


def test_a_blob_lies_two_folders_deep_under_its_digest(tmp_path: Path) -> None:
    name = FileBlobs(tmp_path).put(b"film")
    assert (tmp_path / name[:2] / name[2:4] / name).read_bytes() == b"film"
    assert [path.name for path in (tmp_path / "parts").iterdir()] == []


def test_changed_bytes_are_refused_by_name(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path)
    name = blobs.put(b"film")
    (tmp_path / name[:2] / name[2:4] / name).write_bytes(b"fiim")
    with pytest.raises(DamagedData, match=rf"blob {name[:12]} is damaged\n.*the bytes have changed; expected sha256"):
        blobs.get(name)


def test_a_file_that_was_cut_short_is_written_again(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path)
    name = blobs.put(b"film")
    (tmp_path / name[:2] / name[2:4] / name).write_bytes(b"")
    blobs.put(b"film")
    assert blobs.get(name) == b"film"


def test_after_a_kill_every_blob_is_whole(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PUT, str(tmp_path), "100000", "50000"]
    one = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert one.stdout is not None
    said = [one.stdout.readline().strip() for _ in range(30)]
    os.kill(one.pid, signal.SIGKILL)
    one.communicate(timeout=30)
    blobs = FileBlobs(tmp_path)
    assert set(said) <= set(blobs)
    assert all(digest(blobs.get(name)) == name for name in blobs)


def test_parts_of_a_process_that_is_long_gone_are_removed(tmp_path: Path) -> None:
    FileBlobs(tmp_path)
    old, new = tmp_path / "parts" / "old", tmp_path / "parts" / "new"
    for part in (old, new):
        part.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    FileBlobs(tmp_path)
    assert (old.exists(), new.exists()) == (False, True)


def test_a_root_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        NotWritable, match=r"blobs cannot be written\n.*bytes cannot be kept; got Not a directory\. Make"
    ):
        FileBlobs(tmp_path / "file" / "blobs")


def test_a_place_that_stopped_being_a_folder_is_named(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path / "blobs")
    name = blobs.put(b"film")
    other = blobs.put(b"other")
    for folder in (name[:2], other[:2]):
        path = tmp_path / "blobs" / folder
        path.rename(tmp_path / f"away-{folder}")
        path.write_text("in the way")
    with pytest.raises(NotWritable, match="bytes cannot be kept; got Not a directory"):
        blobs.put(b"film")
    with pytest.raises(NotWritable, match="bytes cannot be kept; got Not a directory"):
        blobs.delete(name)
    with pytest.raises(
        StoreAway, match=rf"blob {name[:12]} cannot be read\n.*the file cannot be read; got Not a directory"
    ):
        blobs.get(name)


def test_a_disk_that_takes_no_more_is_named_and_nothing_is_half_kept(tmp_path: Path) -> None:
    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    command = [sys.executable, "-c", PUT, str(tmp_path), "1", "5000"]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=small_files, timeout=60)
    assert done.stdout == ""
    assert "NotWritable" in done.stderr
    assert "File too large" in done.stderr
    assert list(FileBlobs(tmp_path)) == []
    assert list((tmp_path / "parts").iterdir()) == []
