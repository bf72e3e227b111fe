"""Who may ask for what: the key of a request, looked up in a microsecond or two."""

from __future__ import annotations

import hashlib
import ipaddress
import math
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rounds.core.errors import BadOverride, CallerFault, Fault
from rounds.loop import keyring

# what a route needs; whatever is not named here needs some key, of any scope
OPEN, ANY, PREDICT, LABEL, OPERATE = "", "any", "predict", "label", "operate"
NEEDS: Mapping[str, str] = {
    "/v1/predict": PREDICT,
    "/v1/predict/batch": PREDICT,
    "/v1/labels": LABEL,
    "/v1/promote": OPERATE,
    "/v1/rollback": OPERATE,
    "/health/live": OPEN,
    "/health/ready": OPEN,
    "/openapi.json": OPEN,
}
PREDICTIONS = "/v1/predictions/"
METRICS = "/metrics"
LOOK_S = 1.0
BURST_S = 1.0
HOW = "authorization: Bearer KEY, or x-api-key: KEY"


class Denied(CallerFault):
    """A key that is missing, unknown, over, too weak or too busy (HTTP 401, 403 or 429); after `retry_after` seconds it
    may be tried again."""

    status = 401

    def __init__(
        self, message: str, faults: Sequence[Fault] = (), *, status: int | None = None, retry_after: float = 0.0
    ) -> None:
        super().__init__(message, faults, status=status)
        self.retry_after = retry_after


@dataclass(slots=True, eq=False)
class Grant:
    """What the bearer of a key may do, until `until` (Unix seconds); `tokens` requests may come at once."""

    name: str
    scopes: frozenset[str]
    until: float
    tokens: float = 0.0
    at: float = 0.0


class Guard:
    """Lets in whoever bears a key of the workspace; where there are no keys, everybody on this machine.

    `rate` is the requests a second that each key may send, 0 without bound. The keys are read again within a second
    of a change.
    """

    def __init__(self, home: Path, *, loopback: bool, rate: float = 0.0) -> None:
        self._home = home
        self._loopback = loopback
        self._rate = rate
        self._burst = max(1.0, rate * BURST_S)
        self._salt = secrets.token_bytes(16)
        self._needs = {**NEEDS, METRICS: OPEN} if loopback else NEEDS
        self._grants: dict[bytes, Grant] = {}
        self._spending: dict[str, Grant] = {}
        self._keys: tuple[keyring.Key, ...] = ()
        self._seen: tuple[int, ...] | None = None
        self._looked = -LOOK_S
        self._look(time.monotonic())

    def admit(self, path: str, headers: Mapping[bytes, bytes]) -> Grant | None:
        """What the request's key allows; None where no keys are in force.

        Raises:
            Denied: 401 without a key that holds, 403 where it lacks the scope, 429 where it asks too often.
            WorldFault: the keys cannot be read.
        """
        needs = self._needs.get(path, ANY)
        if needs is OPEN:
            return None
        now = time.monotonic()
        if now - self._looked > LOOK_S:
            self._look(now)
        if self._loopback and not self._keys:
            return None
        text, other = headers.get(b"x-api-key", b""), headers.get(b"authorization")
        if other is not None:
            if text and text != _bearer(other):
                raise _unknown("two keys that differ")
            text = _bearer(other)
        mark = hashlib.blake2b(text, digest_size=16, key=self._salt).digest()
        grant = self._grants.get(mark) or self._granted(text, mark)
        if grant.until < time.time():
            raise _unknown("a key that is over or revoked")
        if needs is ANY and path.startswith(PREDICTIONS):
            needs = PREDICT
        if needs is not ANY and needs not in grant.scopes:
            raise lacks(grant, needs)
        if self._rate:
            self._spend(grant, now)
        return grant

    def charge(self, grant: Grant | None, films: int) -> None:
        """Count a request of many films as so many requests: those that follow wait until that is paid."""
        if grant is not None and self._rate:
            grant.tokens -= films

    def _spend(self, grant: Grant, now: float) -> None:
        grant.tokens = min(self._burst, grant.tokens + (now - grant.at) * self._rate)
        grant.at = now
        if grant.tokens < 1.0:
            wait = (1.0 - grant.tokens) / self._rate
            expected = f"at most {self._rate:g} requests a second"
            fault = Fault("too many requests", "", expected, "more", f"ask again in {wait:.1f} s")
            raise Denied("this key asks too often", [fault], status=429, retry_after=wait)
        grant.tokens -= 1.0

    def _granted(self, text: bytes, mark: bytes) -> Grant:
        key = keyring.find(self._keys, text)
        if key is None:
            raise _unknown("no key" if not text else "a key that is not known here")
        if not key.holds(datetime.now(UTC)):
            raise _unknown("a key that is over or revoked")
        grant = self._grants[mark] = self._spending.setdefault(key.id, _grant(key, self._burst))
        return grant

    def _look(self, now: float) -> None:
        """Read the keys again where their file has changed; what each has left to spend stays."""
        try:
            found = (self._home / keyring.FILE).stat()
            seen: tuple[int, ...] | None = (found.st_mtime_ns, found.st_size, found.st_ino)
        except FileNotFoundError:
            seen = None
        if seen != self._seen:
            self._keys = keyring.read(self._home)
            self._grants.clear()
            spending = [(key, self._spending[key.id]) for key in self._keys if key.id in self._spending]
            self._spending = {key.id: _grant(key, spent.tokens, spent.at) for key, spent in spending}
        self._seen, self._looked = seen, now


def lacks(grant: Grant, scope: str) -> Denied:
    """The refusal of a key that is good, but not for this."""
    got = ", ".join(scope for scope in keyring.SCOPES if scope in grant.scopes)
    then = f"rounds keys add NAME --scope {scope}"
    fault = Fault("the key is not for this", "", f"a key with the scope {scope}", got, then)
    return Denied(f"this needs the scope {scope}", [fault], status=403)


def may_listen(home: Path, host: str) -> None:
    """Refuse to listen where strangers could call while nobody needs a key. Raises BadOverride; WorldFault where the
    keys cannot be read."""
    if is_loopback(host) or keyring.read(home):
        return
    then = "add a key first: rounds keys add NAME --scope predict; or serve this machine alone: --host 127.0.0.1"
    fault = Fault("strangers could call without a key", f"--host {host}", "keys, or a loopback address", "no key", then)
    raise BadOverride(f"refusing to listen on {host} without keys", [fault])


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address; a name counts where it is localhost."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _grant(key: keyring.Key, tokens: float, at: float = 0.0) -> Grant:
    scopes = keyring.SCOPES if key.may(keyring.ADMIN) else key.scopes
    return Grant(key.name, frozenset(scopes), key.expires.timestamp() if key.expires else math.inf, tokens, at)


def _bearer(header: bytes) -> bytes:
    return header[7:].strip() if header[:7].lower() == b"bearer " else b""


def _unknown(got: str) -> Denied:
    return Denied("a key is needed", [Fault("the request bears no key that holds", "header", HOW, got)])
