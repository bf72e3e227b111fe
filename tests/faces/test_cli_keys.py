"""`rounds keys` as it is typed."""

from __future__ import annotations

from pathlib import Path

from tests.support.commands import rounds


def test_a_key_is_shown_once_listed_without_itself_rotated_and_revoked(home: Path) -> None:
    added = rounds(home, "keys", "add", "ward", "--scope", "predict", "--scope", "label", "--days", "90")
    key, said = added.out.splitlines()
    assert key.startswith("rk_")
    assert said == "this is the only time that the key of ward is shown; send it as authorization: Bearer KEY"
    listed = rounds(home, "keys", "list")
    assert key.split("_")[2] not in listed.out + (home / "keys.json").read_text()
    assert listed.out.splitlines()[1].split()[0::2][:2] == ["ward", "predict,label"]
    rotated = rounds(home, "keys", "rotate", "ward", "--overlap-hours", "0", "--json").json
    assert (rotated["name"], rotated["scopes"]) == ("ward", ["predict", "label"])
    assert rotated["key"] != key
    assert [one["holds"] for one in rounds(home, "keys", "list", "--json").json["keys"]] == [False, True]
    assert rounds(home, "keys", "revoke", "ward").out == f"ward ({rotated['id']}) is revoked\n"


def test_what_cannot_be_done_says_why_with_exit_code_2(home: Path) -> None:
    for arguments, message in (
        (("add", "ward"), "the key cannot be added"),
        (("add", "ward", "--scope", "all"), "the key cannot be added"),
        (("rotate", "ward"), "no key 'ward'"),
        (("revoke", "ward"), "no key 'ward'"),
    ):
        done = rounds(home, "keys", *arguments, "--json")
        assert (done.code, done.message) == (2, message)
    assert rounds(home, "keys", "list").out == "none\n"
