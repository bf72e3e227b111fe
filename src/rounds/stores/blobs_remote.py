"""Bytes in an object store (s3://, gs:// and whatever else fsspec speaks), named by their digest.

Credentials and endpoints are those that the clients find by themselves: AWS_* variables and profiles with
AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS with STORAGE_EMULATOR_HOST, FSSPEC_* for anything else.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rounds.core.errors import BadOverride, DamagedData, Fault, StoreAway, UnknownId
from rounds.core.ids import digest as digest_of

_DIGEST = re.compile(r"[0-9a-f]{64}")
# Seconds for one answer, the clients' own repetitions included; listing everything may take longer.
ANSWER_S, LIST_S = 10.0, 600.0
_CONNECT_S = 3.0
_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {
        "config_kwargs": {"connect_timeout": _CONNECT_S, "read_timeout": ANSWER_S, "retries": {"max_attempts": 1}},
        "use_listings_cache": False,
    },
    "gs": {"use_listings_cache": False},
}
_OPTIONS |= {"s3a": _OPTIONS["s3"], "gcs": _OPTIONS["gs"]}


class RemoteBlobs:
    """Objects below an address, two folders deep: ab/cd/abcd....

    An object store shows an object whole or not at all. A store that is away is said within `answer_s` seconds.
    Raises, from every method: StoreAway where the store does not answer, refuses, or has no such bucket.
    """

    def __init__(self, address: str, *, answer_s: float = ANSWER_S) -> None:
        import fsspec

        self._address = address.rstrip("/")
        self._answer_s = answer_s
        # gcsfs else asks for credentials of its own for each bucket's kind, and prints a traceback for every retry.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        logging.getLogger("gcsfs").addHandler(logging.NullHandler())
        scheme = address.partition("://")[0]
        try:
            with self._answering():
                found = fsspec.core.url_to_fs(self._address, skip_instance_cache=True, **_OPTIONS.get(scheme, {}))
        except ImportError as error:
            fault = Fault("not installed", address, "the client for it", str(error), "pip install 'rounds[cloud]'")
            raise BadOverride("blobs cannot be kept there", [fault]) from error
        except ValueError as error:
            fault = Fault("no such kind of address", "ROUNDS_BLOBS", "a folder, s3://BUCKET/PATH or gs://BUCKET/PATH")
            raise BadOverride("blobs cannot be kept there", [fault]) from error
        self._store, self._root = found

    def put(self, data: bytes) -> str:
        """Keep the bytes, which replaces the same bytes; return their digest."""
        digest = digest_of(data)
        try:
            self._do("pipe_file", self._path(digest), data)
        except FileNotFoundError as error:
            raise self._no_bucket(error) from error
        return digest

    def get(self, digest: str) -> bytes:
        """The bytes; UnknownId where absent, DamagedData where they no longer match."""
        data: bytes | None = None
        if _DIGEST.fullmatch(digest):
            try:
                data = self._do("cat_file", self._path(digest))
            except FileNotFoundError:
                self._look_for_bucket()
        if data is None:
            fault = Fault("no such blob", digest, "the digest of kept bytes", "none", "it may have been erased")
            raise UnknownId(f"no blob {digest[:12]!r}", [fault])
        found = digest_of(data)
        if found != digest:
            where = f"{self._address}/{digest[:2]}/{digest[2:4]}/{digest}"
            fault = Fault("the bytes have changed", where, f"sha256 {digest}", found, "restore the object from a copy")
            raise DamagedData(f"blob {digest[:12]} is damaged", [fault])
        return data

    def has(self, digest: str) -> bool:
        """Whether bytes of this digest are kept; they are not read."""
        return self.size(digest) is not None

    def size(self, digest: str) -> int | None:
        """How many bytes are kept under this digest; None where there are none."""
        if not _DIGEST.fullmatch(digest):
            return None
        try:
            found = self._do("info", self._path(digest))
        except FileNotFoundError:
            self._look_for_bucket()
            return None
        return int(found["size"] or 0)

    def delete(self, digest: str) -> bool:
        """Forget the bytes; False where they were not there."""
        if not self.has(digest):
            return False
        try:
            self._do("rm_file", self._path(digest))
        except FileNotFoundError:
            return False
        return True

    def put_many(self, datas: Sequence[bytes]) -> list[str]:
        """Keep each once; their digests, in order."""
        return [self.put(data) for data in datas]

    def delete_many(self, digests: Sequence[str]) -> int:
        """Forget them all; how many were there."""
        return sum(self.delete(digest) for digest in digests)

    def __iter__(self) -> Iterator[str]:
        try:
            found = self._do("find", self._root, within=LIST_S)
        except FileNotFoundError:
            found = []
        if not found:
            self._look_for_bucket()
        names = (str(path).rpartition("/")[2] for path in found)
        return iter(sorted(name for name in names if _DIGEST.fullmatch(name)))

    def _path(self, digest: str) -> str:
        return f"{self._root}/{digest[:2]}/{digest[2:4]}/{digest}"

    def _do(self, what: str, *given: Any, within: float | None = None) -> Any:
        """Have the store do something, in bounded time where its client can be bounded at all."""
        from fsspec.asyn import sync

        with self._answering():
            if not getattr(self._store, "async_impl", False):
                return getattr(self._store, what)(*given)
            return sync(self._store.loop, getattr(self._store, f"_{what}"), *given, timeout=within or self._answer_s)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Turn the clients' many errors into StoreAway; FileNotFoundError stays what it is."""
        try:
            yield
        except (FileNotFoundError, ImportError):
            raise
        except ValueError as error:
            # our own address is settled once; what a client says later comes from the store
            if not hasattr(self, "_store"):
                raise
            raise self._away(error) from error
        except Exception as error:  # the clients share no base class
            raise self._away(error) from error

    def _away(self, error: Exception) -> StoreAway:
        got = f"{type(error).__name__}: {error}".splitlines()[0]
        words = ("Credential", "Forbidden", "Unauthorized", "AccessDenied", "RefreshError")
        if isinstance(error, PermissionError) or any(word in got for word in words):
            what, then = "the store refuses", "check the credentials: AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS"
        else:
            what = "the store does not answer"
            then = "try again, or check the endpoint: AWS_ENDPOINT_URL, STORAGE_EMULATOR_HOST"
        return StoreAway(f"{self._address} does not answer", [Fault(what, self._address, "an answer", got, then)])

    def _look_for_bucket(self) -> None:
        """StoreAway where nothing is found because the bucket itself is absent."""
        try:
            self._do("info", self._root.split("/")[0])
        except FileNotFoundError as error:
            raise self._no_bucket(error) from error

    def _no_bucket(self, error: Exception) -> StoreAway:
        fault = Fault("no such bucket", self._address, "a bucket that is there", str(error), "make it, or name another")
        return StoreAway(f"{self._address} does not answer", [fault])
