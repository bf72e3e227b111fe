"""Keys of the API: shown once, kept as salted hashes, ended by time or by hand, and never without an event."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support.workspace import opened

from rounds.core.errors import BadOverride, UnknownId, WorldFault
from rounds.core.ports import Ports
from rounds.loop import keyring


@pytest.fixture
def ports(home: Path) -> Iterator[Ports]:
    with opened(home) as ports:
        yield ports


def test_a_key_is_kept_as_a_salted_hash_that_only_its_owner_may_read(ports: Ports) -> None:
    text, key = keyring.add(ports, "ward", ["label", "predict"], 90)
    path = ports.home / keyring.FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert text.split("_")[2] not in path.read_text()
    assert (key.scopes, key.expires) == (("predict", "label"), key.created + timedelta(days=90))
    assert keyring.find(keyring.read(ports.home), text.encode()) == key
    other = text[:-1] + ("A" if text[-1] != "A" else "B")
    for wrong in (other, text + "A", "", "rk_", "rk_" + "0" * 12 + text[15:]):
        assert keyring.find(keyring.read(ports.home), wrong.encode()) is None


def test_the_log_says_who_may_call_since_when_and_never_the_key(ports: Ports) -> None:
    first, _ = keyring.add(ports, "ward", ["admin"])
    second, _ = keyring.rotate(ports, "ward")
    keyring.revoke(ports, "ward")
    events = ports.events.read()
    assert [event.kind for event in events] == ["key_added", "key_rotated", "key_revoked", "key_revoked"]
    assert events[0].evidence["name"] == "ward"
    assert events[0].evidence["scopes"] == ["admin"]
    told = json.dumps([dict(event.evidence) for event in events])
    assert not any(part in told for text in (first, second) for part in (text, text.split("_")[2]))


def test_a_rotated_key_holds_until_the_overlap_ends_and_the_new_one_as_long_as_the_old_one_did(ports: Ports) -> None:
    old_text, _ = keyring.add(ports, "ward", ["predict"], 30)
    _, new = keyring.rotate(ports, "ward", overlap_hours=2)
    old = keyring.find(keyring.read(ports.home), old_text.encode())
    assert old is not None
    assert old.expires is not None
    assert timedelta(hours=1.9) < old.expires - ports.clock() <= timedelta(hours=2)
    assert new.expires == new.created + timedelta(days=30)
    assert not old.holds(old.expires)
    later = replace(ports, clock=lambda: ports.clock() + timedelta(hours=3))
    assert [key.id for key in keyring.revoke(later, "ward")] == [new.id]


def test_what_cannot_be_a_key_is_refused_with_every_reason(ports: Ports) -> None:
    keyring.add(ports, "ward", ["predict"])
    with pytest.raises(BadOverride, match="a key of this name holds; expected a new name; got ward") as caught:
        keyring.add(ports, "ward", ["write"], -1)
    assert [fault.what for fault in caught.value.faults] == [
        "no such scope",
        "the key would never hold",
        "a key of this name holds",
    ]
    with pytest.raises(BadOverride, match="the name cannot be used"):
        keyring.add(ports, "a key\n", ["predict"])
    with pytest.raises(BadOverride, match="no scope"):
        keyring.add(ports, "other", [])
    with pytest.raises(BadOverride, match="the key cannot be rotated\n  --overlap-hours: no such overlap"):
        keyring.rotate(ports, "ward", math.nan)
    with pytest.raises(UnknownId, match=r"no key 'nobody'\n.*got ward"):
        keyring.revoke(ports, "nobody")
    assert len(keyring.read(ports.home)) == 1


def test_a_file_that_cannot_be_read_lets_nobody_in(ports: Ports) -> None:
    (ports.home / keyring.FILE).write_text('{"keys": [{"name": "ward"}]}')
    with pytest.raises(WorldFault, match="the keys cannot be read, so nobody is let in"):
        keyring.read(ports.home)
