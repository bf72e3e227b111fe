"""What a tracker is to be told about one run, kept on disk until it was told."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rounds.core.ids import write_whole

Entry = Mapping[str, Any]
# What follows it in a folder's name tells apart the processes that speak of one run.
BESIDE = "~"


class Journal:
    """A folder: `entries.jsonl`, appended to alone; `sent`, how many of them were handed over; `files/`, what is to be
    kept; `lock`, held while a process writes here and released by the kernel however it dies.

    Raises BlockingIOError where another process holds it.
    """

    def __init__(self, place: Path) -> None:
        (place / "files").mkdir(parents=True, exist_ok=True)
        self.run, self.place = place.name.partition(BESIDE)[0], place
        self._lock = (place / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise
        self._file = (place / "entries.jsonl").open("a+b")
        self.entries: list[Entry] = self._read()
        self.sent = int(text) if (text := self._text("sent")) else 0

    @classmethod
    def left(cls, place: Path) -> Journal | None:
        """The journal that an ended process left in a folder; None where another process holds it or has emptied it."""
        if not (place / "entries.jsonl").exists():
            return None
        with suppress(BlockingIOError, FileNotFoundError):
            found = cls(place)
            if found.entries:
                return found
            found.drop()
        return None

    @property
    def waiting(self) -> list[Entry]:
        """The entries that were not handed over yet."""
        return self.entries[self.sent :]

    @property
    def ended(self) -> bool:
        """Whether no process is to add to the run: what came last of start, reopen and finish is the finish."""
        last = [entry["do"] for entry in self.entries if entry["do"] in ("start", "reopen", "finish")]
        return not last or last[-1] == "finish"

    def add(self, do: str, **facts: Any) -> None:
        """Append one entry."""
        entry = {"do": do, **facts}
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()
        self.entries.append(entry)

    def add_file(self, file: Path, **facts: Any) -> None:
        """Append an entry about a file, or a folder, as it is now: a link to its bytes, or a copy where none can be."""
        held = Path("files") / str(len(self.entries)) / file.name
        (self.place / held).parent.mkdir(parents=True)
        if file.is_dir():
            shutil.copytree(file, self.place / held, copy_function=_link)
        else:
            _link(str(file), str(self.place / held))
        self.add("keep", file=str(held), **facts)

    def file(self, entry: Entry) -> Path:
        """Where the file of an entry lies."""
        return self.place / str(entry["file"])

    def mark(self, count: int) -> None:
        """Remember that so many more entries were handed over."""
        self.sent += count
        write_whole(self.place / "sent", str(self.sent).encode())

    def close(self) -> None:
        """Let go of the folder, which stays."""
        self._file.close()
        self._lock.close()

    def drop(self) -> None:
        """Remove the folder: everything in it was handed over."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.close()

    def _read(self) -> list[Entry]:
        """Every entry that was written whole; a last one that a crash cut short is taken away."""
        self._file.seek(0)
        whole, _, torn = self._file.read().rpartition(b"\n")
        if torn:
            self._file.truncate(len(whole) + 1 if whole else 0)
        return [json.loads(line) for line in whole.splitlines()]

    def _text(self, name: str) -> str:
        path = self.place / name
        return path.read_text() if path.exists() else ""


def _link(source: str, target: str) -> None:
    """A second name for the same bytes: whoever writes the file anew renames another one over it, so these stay."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
