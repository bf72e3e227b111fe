"""What changed between two data sets, as Markdown for a pull request and as figures beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from rounds.data.difference import Difference
from rounds.data.survey import MOVED
from rounds.report import drawing
from rounds.report.drawing import Frame, box, clip, svg, text
from rounds.report.shifts import p_text, shift_chart

LISTED = 20
TITLES = {
    "came": "Films that came",
    "went": "Films that went",
    "relabelled": "Changed labels",
    "moved": "Changed splits",
    "resubjected": "Changed subjects",
    "reattributed": "Changed attributes",
    "renamed": "Renamed films",
    "replaced": "Replaced films",
}
_BLOCKS = " ▏▎▍▌▋▊▉█"
_SIGNS = {ord(sign): f"&#{ord(sign)};" for sign in "&\\`*_|<>[]#~!@"} | {ord("\n"): " ", ord("\r"): " "}


def difference_text(found: Difference, figures: Sequence[str] = ()) -> str:
    """Markdown: a summary, counts by split and class, drift, and the first 20 films of every change; `figures` are
    names of pictures that lie beside it. A comment holds 65,536 characters; this stays below."""
    public = found.public()
    lines = [f"## Data set {_id(found.before)} → {_id(found.after)}", "", _summary(public), ""]
    lines += [f"![{name}]({name})" for name in figures]
    if public["same"]:
        return "\n".join(lines).rstrip() + "\n"
    lines += ["", *_counts(found.counts), "", *_drift(found.drift)]
    for kind, title in TITLES.items():
        lines += _listed(title, found.changes[kind])
    return "\n".join(lines).rstrip() + "\n"


def figures(found: Difference) -> dict[str, Markup]:
    """The drawings by the end of their file names: films by class, and drift where films came."""
    drawn = {"classes": drawing.standalone(_class_chart(found.counts))}
    if found.drift:
        chart = shift_chart(found.drift, title="The films that came, against those of before", reach=MOVED)
        drawn["drift"] = drawing.standalone(chart)
    return drawn


def _id(side: Mapping[str, Any]) -> str:
    return f"`{side['name']}@{side['digest'][:12]}`"


def _summary(public: Mapping[str, Any]) -> str:
    if public["same"]:
        return "Both are the same data set: the same films, labels, splits and subjects."
    counts = [f"**{len(public[kind]):,}** {TITLES[kind].lower()}" for kind in TITLES if public[kind]]
    moved = [row["measure"] for row in public["drift"] if row["moved"]]
    drift = f" Drifted: **{', '.join(moved)}**." if moved else " No measure drifted." if public["drift"] else ""
    return f"{public['stayed']:,} films stayed; {', '.join(counts) or 'nothing changed but the classes'}.{drift}"


def _counts(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    most = max((max(row["before"], row["after"]) for row in rows), default=1)
    yield "| split | class | before | after | change | |"
    yield "|---|---|---:|---:|---:|---|"
    for row in rows:
        change = row["after"] - row["before"]
        bar = _bar(row["after"] / most)
        yield f"| {row['split']} | {_safe(row['class'])} | {row['before']:,} | {row['after']:,} | {change:+,} | {bar} |"


def _drift(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not rows:
        return
    yield "The films that came against those of before, within classes, one film a subject:"
    yield ""
    yield "| measure | size | above before | 95 % interval | p | corrected p | |"
    yield "|---|---:|---:|---|---:|---:|---|"
    for row in rows:
        known = row["superiority"] is not None
        above, bounds = (f"{row['superiority']:.3f}", f"{row['low']:.3f} to {row['high']:.3f}") if known else ("", "")
        told = [row["measure"], f"{row['size']:+.3f}", above, bounds, p_text(row["p"]), p_text(row["p_corrected"])]
        yield f"| {' | '.join(told)} | {'**moved**' if row['moved'] else ''} |"
    yield ""
    yield (
        "Sizes are in standard deviations of before (class mix: the largest change of a share); p-values are corrected "
        "over these rows (Holm). A row has moved where its corrected p is below 0.01 and the size matters."
    )


def _listed(title: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not rows:
        return
    yield ""
    yield f"<details><summary>{title}: {len(rows):,}</summary>"
    yield ""
    keys = list(rows[0])
    yield f"| {' | '.join(keys)} |"
    yield "|" + "---|" * len(keys)
    for row in rows[:LISTED]:
        yield f"| {' | '.join(_safe(value) for value in row.values())} |"
    yield ""
    if len(rows) > LISTED:
        yield f"and {len(rows) - LISTED:,} more"
        yield ""
    yield "</details>"


def _safe(value: object) -> str:
    """Text for a cell of a Markdown table: names of files are whatever their owner wrote."""
    return clip(str(value), 160).translate(_SIGNS)


def _bar(share: float, cells: int = 16) -> str:
    """A bar of text, which every comment shows."""
    eighths = round(share * cells * 8)
    return "█" * (eighths // 8) + _BLOCKS[eighths % 8].strip()


def _class_chart(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """Two bars a split and class: before above, after below."""
    most = max((max(row["before"], row["after"]) for row in rows), default=1) or 1
    frame = Frame(180, 36, 330, 34.0 * max(len(rows), 1), (0.0, float(most)))
    title = "Films by split and class"
    body = [box(0, 0, 610, frame.bottom + 48, "paper"), text(0, 15, title, "heading")]
    ticks = drawing.ticks(0.0, float(most), 5)
    body.append(drawing.axes(frame, x_ticks=ticks, y_ticks=(), x_label="films: before grey, after blue", y_label=""))
    said = []
    for index, row in enumerate(rows):
        y = frame.top + 34 * index
        body.append(text(0, y + 21, clip(f"{row['split']}: {row['class']}", 26), "strong"))
        for at, tone, count in ((y + 4, "note", row["before"]), (y + 17, "c0", row["after"])):
            body.append(box(frame.left, at, frame.x(count) - frame.left, 11, f"bar {tone}", tip=f"{count:,} films"))
        body.append(text(frame.right + 14, y + 21, f"{row['after'] - row['before']:+,}", "tick"))
        said.append(f"{row['split']} {row['class']} {row['before']:,} before, {row['after']:,} after")
    return svg(610, frame.bottom + 48, title, "; ".join(said) + ".", *body, heading=False)
