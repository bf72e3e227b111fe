"""What changed between two data sets, film by film, and whether what came has drifted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from tests.support.planted import jpeg, kept, phantoms

from rounds.data.difference import CHANGES, difference
from rounds.imaging.decode import decode
from rounds.imaging.fit import encode_png
from rounds.imaging.packed import Film
from rounds.imaging.phantom import draw
from rounds.report.difference import difference_text, figures


def test_a_data_set_does_not_differ_from_itself(tmp_path: Path) -> None:
    dataset = kept(tmp_path, phantoms(80))
    public = difference(dataset, dataset).public()
    assert public["same"]
    assert public["stayed"] == 80
    assert [public[kind] for kind in CHANGES] == [[]] * len(CHANGES)
    assert public["drift"] == []
    text = difference_text(difference(dataset, dataset))
    assert text.endswith("Both are the same data set: the same films, labels, splits and subjects.\n")


def test_every_change_names_its_film_and_what_it_was(tmp_path: Path) -> None:
    films = phantoms(80)
    a, b, c, d, e, f, *_ = films[::8]
    other = "opacity" if a.label == "normal" else "normal"
    changed = {
        a.name: [replace(a, label=other)],
        b.name: [replace(b, split="val" if b.split != "val" else "train")],
        c.name: [replace(c, name="renamed")],
        d.name: [replace(d, data=jpeg(decode(d.data), 85))],
        e.name: [],
        f.name: [replace(f, subject="another"), replace(f, name="again", attributes={"view": "PA"})],
    }
    after = [new for film in films for new in changed.get(film.name, [film])]
    found = difference(kept(tmp_path / "a", films), kept(tmp_path / "b", after)).public()

    def told(film: Film, **more: object) -> dict[str, object]:
        return {"file": film.name, "split": film.split, "label": film.label, **more}

    assert found["relabelled"] == [told(replace(a, label=other), was=a.label, now=other)]
    assert found["moved"] == [told(changed[b.name][0], was=b.split, now=changed[b.name][0].split)]
    assert found["renamed"] == [told(changed[c.name][0], was=c.name, now="renamed")]
    assert found["replaced"] == [told(d, how="encoded again")]
    assert found["went"] == [told(e)]
    assert found["came"] == [told(changed[f.name][1])]
    assert found["resubjected"] == [told(f, was=f.subject, now="another")]
    assert found["reattributed"] == []
    assert (found["stayed"], found["before"]["images"], found["after"]["images"]) == (79, 80, 80)


def test_films_of_another_scanner_that_came_have_drifted(tmp_path: Path) -> None:
    films = phantoms(160)
    came = [
        Film(encode_png((film.pixels * 0.75).astype(np.uint8)), film.label, film.subject, "train", f"new {film.name}")
        for film in draw(160, seed=12, size=64)
    ]
    alike = [
        Film(encode_png(film.pixels), film.label, film.subject, "train", f"new {film.name}")
        for film in draw(160, seed=13, size=64)
    ]
    before = kept(tmp_path / "a", films)
    found = difference(before, kept(tmp_path / "b", films + came))
    rows = {row["measure"]: row for row in found.drift}
    assert rows["exposure"]["moved"]
    assert rows["exposure"]["size"] < -1
    assert rows["exposure"]["p_corrected"] < 1e-4
    assert not any(row["moved"] for row in difference(before, kept(tmp_path / "c", films + alike)).drift)
    text = difference_text(found, ["d-classes.svg", "d-drift.svg"])
    assert "160 films stayed; **160** films that came. Drifted: **exposure" in text
    assert "![d-drift.svg](d-drift.svg)" in text
    assert len(text) < 65_536
    drawn = figures(found)
    assert list(drawn) == ["classes", "drift"]
    assert all(figure.startswith("<svg") and len(figure) < 20_000 for figure in drawn.values())


def test_names_cannot_break_out_of_a_markdown_table(tmp_path: Path) -> None:
    films = phantoms(80)
    hostile = replace(films[0], name="a|b</details><script>![x](y)\n# big", data=films[0].data)
    text = difference_text(difference(kept(tmp_path / "a", films[1:]), kept(tmp_path / "b", [*films[1:], hostile])))
    (row,) = [line for line in text.splitlines() if "script" in line]
    assert row.startswith("| a&#124;b&#60;/details&#62;&#60;script&#62;&#33;&#91;x&#93;(y) &#35; big | ")
