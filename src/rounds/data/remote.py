"""Files and folders behind an address (s3://, gs://, https:// and whatever else fsspec speaks).

Credentials and endpoints are those that the clients find by themselves: AWS_* variables and profiles with
AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS with STORAGE_EMULATOR_HOST, FSSPEC_* for anything else. They repeat
requests that fail in passing, as often as each thinks right.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import PurePosixPath
from typing import IO, Any, NamedTuple
from urllib.parse import urlsplit

import fsspec

from rounds.core.errors import Fault, StoreAway, WorldFault
from rounds.data.items import bad_source

READERS = 16

_BLOCK = 8 * 1024 * 1024
_WEB = ("http", "https")
_READ_TWICE = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
# Modules whose errors are those of the network, of the store or of the credentials for it.
_CLIENTS = {"aiobotocore", "aiohttp", "asyncio", "botocore", "fsspec", "gcsfs", "google", "requests", "s3fs"}


class Entry(NamedTuple):
    """A file of a folder: its size in bytes, and how to read it whole (OSError where it has gone)."""

    size: int
    read: Callable[[], bytes]


def is_address(source: str) -> bool:
    """Whether it is not a path of this machine."""
    return "://" in source


def is_web(source: str) -> bool:
    """Whether it is an address of the web, which has files and no folders."""
    return urlsplit(source).scheme in _WEB


class _Place:
    def __init__(self, address: str) -> None:
        self.address = address
        # gcsfs else asks for credentials of its own for each bucket's kind, and prints a traceback for every retry.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        logging.getLogger("gcsfs").addHandler(logging.NullHandler())
        try:
            with answering(address):
                # A client that fsspec remembers has the endpoint and the listings of back then.
                self._store, self._path = fsspec.core.url_to_fs(address, skip_instance_cache=True)
        except ImportError as error:
            fault = Fault("not installed", address, "the client for such addresses", str(error))
            then = Fault("the core install reads local files", next="pip install 'rounds[cloud]'")
            raise WorldFault(f"cannot reach {address}", [fault, then]) from error
        except ValueError as error:
            known = "a path, or an address such as s3://, gs:// or https://"
            raise bad_source(address, Fault("no such kind of address", address, known, str(error))) from error

    def __str__(self) -> str:
        return self.address

    @property
    def name(self) -> str:
        return PurePosixPath(urlsplit(self.address).path).name

    def _absent(self) -> Exception:
        """The error for nothing at the address: the world's where the whole bucket is absent."""
        bucket = self._path.split("/")[0]
        try:
            if not is_web(self.address):
                with answering(self.address):
                    self._store.info(bucket)
        except FileNotFoundError:
            fault = Fault("no such bucket", self.address, "a bucket that is there and may be read", bucket)
            return StoreAway(f"cannot read {self.address}", [fault])
        return bad_source(self.address, Fault("no such file or folder", self.address, "files behind this address"))


class RemoteFile(_Place):
    """A file behind an address, with as much of `pathlib.Path` as readers of sources need."""

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> RemoteFolder:
        return RemoteFolder(self.address.rpartition("/")[0])

    @contextmanager
    def open(self, mode: str = "rb") -> Iterator[IO[bytes]]:
        """Opens it for reading at any place, without a copy on the disk.

        A .tar, which is read twice, and a file of the web, which may not be readable from the middle, are fetched into
        a temporary file (under TMPDIR) that has no name and goes with the process. Raises: StoreAway, BadSource.
        """
        assert mode == "rb", "sources are read, never written"
        with self._opened() as raw:
            if not self._fetched:
                yield io.BufferedReader(_Answering(raw, self.address), _BLOCK)
                return
            with tempfile.TemporaryFile() as file:
                with answering(self.address):
                    shutil.copyfileobj(raw, file, _BLOCK)
                file.seek(0)
                yield file

    @property
    def _fetched(self) -> bool:
        return is_web(self.address) or self.name.lower().endswith(_READ_TWICE)

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            with answering(self.address):
                raw = self._store.open(self._path, "rb", block_size=_BLOCK, cache_type="readahead")
        except FileNotFoundError as error:
            raise self._absent() from error
        with raw:
            yield raw


class RemoteFolder(_Place):
    """Everything whose address begins with this one and a slash."""

    def files(self) -> dict[str, Entry]:
        """The files by their path inside the folder, in order. Raises: StoreAway; BadSource where there are none."""
        root = self._path.rstrip("/")
        try:
            with answering(self.address):
                found = self._store.find(root, detail=True)
        except FileNotFoundError as error:
            raise self._absent() from error
        names = {path: path.removeprefix(f"{root}/") for path in sorted(found) if path.startswith(f"{root}/")}
        if not names:
            raise self._absent()
        return {
            name: Entry(int(found[path]["size"] or 0), partial(self._read, path))
            for path, name in names.items()
            if name and not name.endswith("/")
        }

    def _read(self, path: str) -> bytes:
        with answering(f"{urlsplit(self.address).scheme}://{path}"):
            data: bytes = self._store.cat_file(path)
            return data


class _Answering(io.RawIOBase):
    """A remote file whose failures are those of the store, so that no reader takes them for a broken file."""

    def __init__(self, raw: Any, address: str) -> None:
        self._raw, self._address = raw, address

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        with answering(self._address):
            data = self._raw.read(len(view))
        view[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return int(self._raw.seek(offset, whence))

    def tell(self) -> int:
        return int(self._raw.tell())


@contextmanager
def answering(address: str) -> Iterator[None]:
    """Turns the clients' many errors into StoreAway; FileNotFoundError stays what it is."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), address) from error
    except Exception as error:  # the clients share no base class; what is not theirs goes on
        if isinstance(error, ImportError) or not _of_the_world(error):
            raise
        got = f"{type(error).__name__}: {error}".splitlines()[0]
        raise StoreAway(f"cannot read {address}", [_fault(error, address, got)]) from error


def _of_the_world(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return False  # the disk under TMPDIR is full: no fault of the store
    return isinstance(error, OSError | TimeoutError) or type(error).__module__.split(".")[0] in _CLIENTS


def _fault(error: Exception, address: str, got: str) -> Fault:
    words = ("Credential", "Forbidden", "Unauthorized", "DefaultCredentialsError", "RefreshError")
    code = getattr(error, "code", None) or getattr(error, "status", None)
    if isinstance(error, PermissionError) or code in (401, 403) or any(word in got for word in words):
        then = "check the credentials: AWS_ACCESS_KEY_ID or AWS_PROFILE, GOOGLE_APPLICATION_CREDENTIALS"
        return Fault("the store refuses to be read", address, "the right to list and to read", got, then)
    then = "try again, or check the address and the endpoint: AWS_ENDPOINT_URL, STORAGE_EMULATOR_HOST"
    return Fault("the store does not answer", address, "an answer", got, then)
