"""The page of a whole life of the loop."""

from __future__ import annotations

import copy
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from rounds.report.figures import evidence_chart
from rounds.report.pictures import Served
from rounds.report.story import Step, outcome, served, story_page

HOSTILE = "<script>alert(1)</script>"
FIGURES: dict[str, Any] = {
    "ok": True,
    "source": "phantom:n=9000,seed=0",
    "seconds": 141.2,
    "peak_mb": 1210.4,
    "clean": {"n": 1500, "false_alarms": 0},
    "shift": {"images_to_alarm": 140, "moved": ["sharpness"], "accuracy_before": 0.941, "accuracy_after": 0.846},
    "cure": {"kind": "recalibrated", "labels": 160, "accuracy_before": 0.846, "accuracy_after": 0.921},
    "swap": {"requests": 1234, "failed": 0},
    "planted": {"refused": True, "reason": f"AUC lower by 0.041 {HOSTILE}"},
    "better": {"accepted": True},
    "rollback": {"seconds": 0.213},
    "trace": {"ok": True},
    "audit": {"ok": True, "tamper_found": True},
}
UNMEASURED: dict[str, Any] = {
    key: dict.fromkeys(value) if isinstance(value, dict) else None for key, value in FIGURES.items()
}


def png() -> bytes:
    """One black pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")


def event(seq: int, second: int, kind: str, **evidence: Any) -> dict[str, Any]:
    at = f"2026-11-21T09:00:{second:02d}.000000Z"
    row = {"seq": seq, "id": f"e{seq}", "at": at, "kind": kind, "who": "policy", "why": f"because {HOSTILE}"}
    return row | {"evidence": evidence, "prev": "0" * 64, "hash": "1" * 64}


HISTORY = [
    event(1, 0, "prepared"),
    event(2, 1, "policy", rules={"monitor": {"alpha": 0.02, "horizon": 5000}, "gate": {"alpha": 0.04}}),
    event(3, 10, "promoted", version="v1", provisional=False),
    event(4, 20, "labels_asked"),
    event(5, 30, "promoted", version="v2", provisional=True),
    event(6, 40, "rolled_back", version="v1"),
]
CHART = evidence_chart([(20, 1.0), (1640, 17.0)], 15.8, change_at=1500, alarm_at=1640)
STEPS = [
    Step(1, "Films come in", 12.3, "First.\n\nSecond.", (("films taken", "9000"), (HOSTILE, HOSTILE))),
    Step(5, "The scanner changes", 7.7, HOSTILE, (), figures=(CHART, CHART), films=((HOSTILE, png()),)),
    Step(8, "Taken back", 0.4, "", (), films=(("a JPEG", b"\xff\xd8\xff\xe0"),)),
]


def test_the_page_is_whole_and_escapes_everything_it_is_told(whole: Callable[[str], Any]) -> None:
    page = story_page(FIGURES, STEPS, history=HISTORY, source=f"folder/{HOSTILE}", citation=HOSTILE)
    whole(page)
    assert "<script" not in page
    assert page.count("data:image/png;base64,") == 1
    assert page.count("data:image/jpeg;base64,") == 1
    assert "<p>First.</p>\n<p>Second.</p>" in page


def test_a_doi_in_the_citation_is_text_and_no_request(whole: Callable[[str], Any]) -> None:
    page = story_page(FIGURES, STEPS, history=[], source="x", citation="Kermany 2018, doi 10.17632/rscbjbr9sj")
    whole(page)
    assert "Kermany 2018, doi 10.17632/rscbjbr9sj" in page


def test_the_outcome_is_one_sentence_about_what_was_measured() -> None:
    assert outcome(FIGURES, STEPS).replace("\u202f", " ") == (
        "The loop closed: when the scanner changed, accuracy fell from 94.1 % to 84.6 %, the watch raised the alarm "
        "after 140 images, the model was recalibrated and accuracy rose to 92.1 %, and no request failed while models "
        "were swapped."
    )


@pytest.mark.parametrize(
    ("change", "ok", "expected"),
    [
        ({"ok": False}, True, "The loop did not close as it should."),
        ({"ok": False}, False, "The loop did not close as it should: step 3, it passes the gate."),
        ({"shift": {}, "cure": {}, "swap": {}}, True, "The loop closed."),
        ({"shift": {}, "cure": {}, "swap": {"requests": 9, "failed": 0}}, True, "The loop closed: no request failed"),
    ],
)
def test_the_outcome_says_what_went_wrong_and_nothing_that_was_not_measured(
    change: Mapping[str, Any], ok: bool, expected: str
) -> None:
    assert outcome({**FIGURES, **change}, [Step(3, "It passes the gate", 1.0, "", (), ok=ok)]).startswith(expected)


def test_the_main_figures_stand_in_the_order_of_the_story() -> None:
    page = story_page(FIGURES, STEPS, history=HISTORY, source="x").replace("\u202f", " ")
    tiles = page[page.index('<dl class="tiles">') : page.index("</dl>")]
    values = [part.split("<")[0] for part in tiles.split('<span class="value">')[1:]]
    assert values == ["94.1 %", "84.6 %", "92.1 %", "140", "0", "0", "213 ms", "refused", "accepted"]
    assert "recalibrated, 160 labels" in tiles
    assert "moved: sharpness" in tiles
    assert "in 1,500 clean images" in tiles
    assert "of 1,234 during swaps" in tiles
    assert "not as it should be" not in tiles


def test_figures_that_are_not_as_they_should_be_say_so_in_words(whole: Callable[[str], Any]) -> None:
    figures = copy.deepcopy(FIGURES) | {"ok": False, "planted": {"refused": False, "reason": None}}
    figures["swap"]["failed"], figures["clean"]["false_alarms"], figures["audit"]["tamper_found"] = 2, 1, False
    page = story_page(figures, STEPS, history=HISTORY, source="x")
    whole(page)
    assert page.count("not as it should be</span>") == 3
    assert "not shown: a tampered copy of the log was caught at the right entry" in page


def test_what_was_not_measured_is_said_to_be_so(whole: Callable[[str], Any]) -> None:
    page = story_page(UNMEASURED, [], history=[], source="x")
    whole(page)
    tiles = page[page.index('<dl class="tiles">') : page.index("</dl>")]
    assert tiles.count('class="value absent">not measured') == 9
    assert "not measured: a prediction was traced to its model, data and code" in page
    assert story_page({}, [], history=[], source="x").count('class="value absent">not measured') == 9


def test_what_moved_may_come_with_sizes_or_as_one_text() -> None:
    for moved in (["blur", "noise"], [{"what": "blur", "size": 2.1}, {"what": "noise", "size": 1.0}], "blur, noise"):
        figures = {**FIGURES, "shift": {**FIGURES["shift"], "moved": moved}}
        assert "moved: blur, noise" in story_page(figures, [], history=[], source="x")


def test_promotions_and_rollbacks_in_the_log_become_a_timeline() -> None:
    assert served(HISTORY) == [
        Served("v1", 10.0, 30.0),
        Served("v2", 30.0, 40.0, "provisional"),
        Served("v1", 40.0, None, "rolled back"),
    ]
    assert served([]) == []
    assert "Which version answered when" in story_page(FIGURES, [], history=HISTORY, source="x")
    assert "Which version answered when" not in story_page(FIGURES, [], history=HISTORY[:3], source="x")


def test_the_log_is_a_table_with_an_entry_a_row() -> None:
    page = story_page(FIGURES, [], history=HISTORY, source="x")
    assert "6 entries; times are UTC" in page
    row = '<td class="figure">4</td><td><time datetime="2026-11-21T09:00:20.000000Z">09:00:20</time></td>'
    assert row + '<th scope="row">labels asked</th><td>policy</td>' in page


def test_the_promises_are_those_of_the_policy_in_force_else_the_defaults() -> None:
    page = story_page(FIGURES, [], history=HISTORY, source="x").replace("\u202f", " ")
    assert "in the first 5,000 subjects is at most 2.0 %" in page
    assert "the life of a test set, is at most 4.0 %" in page
    page = story_page(FIGURES, [], history=[], source="x").replace("\u202f", " ")
    assert "in the first 10,000 subjects is at most 1.0 %" in page
    assert "Not a medical device." in page


def test_durations_are_written_in_the_unit_that_fits() -> None:
    from rounds.report.pages import seconds

    written = [seconds(value).replace("\u202f", " ") for value in (None, 0.213, 1.0, 119.9, 141.2)]
    assert written == ["not measured", "213 ms", "1.0 s", "119.9 s", "2 min 21 s"]
