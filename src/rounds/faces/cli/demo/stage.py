"""What the chapters share: the ports, the world, the ward, the figures, and the steps told so far."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rounds.core.ports import Ports
from rounds.core.records import Bundle
from rounds.faces.cli import say
from rounds.faces.cli.demo.traffic import Answer, Ward
from rounds.faces.cli.demo.world import Shift, World
from rounds.imaging.packed import Film
from rounds.loop import conduct, labelling
from rounds.report.story import Step

CHUNK = 20


def empty_figures() -> dict[str, Any]:
    """The figures of the contract, before anything was measured."""
    return {
        "ok": False,
        "source": None,
        "seconds": None,
        "peak_mb": None,
        "clean": {"n": 0, "false_alarms": 0},
        "shift": {"images_to_alarm": None, "moved": [], "accuracy_before": None, "accuracy_after": None},
        "cure": {"kind": None, "labels": 0, "accuracy_before": None, "accuracy_after": None},
        "swap": {"requests": 0, "failed": 0},
        "planted": {"refused": None, "reason": None},
        "better": {"accepted": None},
        "rollback": {"seconds": None},
        "trace": {"ok": False},
        "audit": {"ok": False, "tamper_found": False},
    }


@dataclass
class Telling:
    """One step while it happens: what it says, the facts it measured, its pictures and films."""

    text: str = ""
    facts: list[tuple[str, str]] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)
    films: list[tuple[str, bytes]] = field(default_factory=list)
    ok: bool = True


@dataclass
class Stage:
    """Everything the chapters share; chapters add to it in their order."""

    ports: Ports
    source: str
    seed: int
    figures: dict[str, Any]
    steps: list[Step] = field(default_factory=list)
    truth: dict[str, str] = field(default_factory=dict)
    evidence: list[tuple[int, float]] = field(default_factory=list)
    place: int = 0
    now: Telling = field(default_factory=Telling)
    world: World | None = None
    bundle: Bundle | None = None
    shift: Shift | None = None
    ward: Ward | None = None
    first_answer: Answer | None = None
    shifted: set[str] = field(default_factory=set)
    changed_at: int = 0
    citation: str = ""

    @property
    def ok(self) -> bool:
        """Whether every step went as the story promises."""
        return all(step.ok for step in self.steps)

    @contextmanager
    def step(self, number: int, of: int, title: str) -> Iterator[None]:
        """Name a step while it happens, and keep what it told."""
        say.note(f"[{number}/{of}] {title} ...")
        self.now, begun = Telling(), time.perf_counter()
        yield
        told, seconds = self.now, time.perf_counter() - begun
        for name, value in told.facts:
            say.note(f"      {name}: {value}")
        say.note(f"      {seconds:.1f} s" + ("" if told.ok else ": not as it should be"))
        kept = Step(
            number=number,
            title=title,
            seconds=seconds,
            text=told.text,
            facts=tuple(told.facts),
            ok=told.ok,
            figures=tuple(told.figures),
            films=tuple(told.films),
        )
        self.steps.append(kept)

    def tell(self, text: str = "", **facts: object) -> None:
        """Add a sentence and facts to the step at hand."""
        self.now.text = f"{self.now.text} {text}".strip()
        self.now.facts += [(name.replace("_", " "), _shown(value)) for name, value in facts.items()]

    def must(self, holds: bool, otherwise: str) -> None:
        """Mark the step as failed, with its reason, where what must hold does not; the story goes on."""
        if not holds:
            self.now.ok = False
            self.tell(f"Not as it should be: {otherwise}.")

    def open_ward(self, address: str) -> None:
        self.ward = Ward(address)

    def send(self, films: Iterable[Film]) -> list[Answer]:
        """Send films to the server and remember their truth."""
        assert self.ward is not None
        answers = self.ward.send(films)
        self.remember(answers)
        if self.first_answer is None and answers:
            self.first_answer = answers[0]
        return answers

    def remember(self, answers: Iterable[Answer]) -> None:
        """Keep the truth about answered films, for whoever is asked to label them."""
        self.truth.update((answer.id, answer.truth) for answer in answers)

    def stream(self, n: int, shift: Shift | None = None) -> list[Answer]:
        """Send the next n films of the stream; fewer where it ends."""
        assert self.world is not None
        stop = min(len(self.world.stream), self.place + n)
        answers = self.send(self.world.films(self.place, stop, shift))
        if shift:
            self.changed_at = self.changed_at or self.place
            self.shifted.update(answer.id for answer in answers)
        self.place = stop
        return answers

    @property
    def left(self) -> int:
        """Films of the stream that have not been sent."""
        return len(self.world.stream) - self.place if self.world else 0

    def label_audited(self) -> int:
        """Answer the audit's questions with the truth, through the API; how many labels were taken."""
        assert self.ward is not None
        queue = [row.prediction for row in labelling.audit_queue(self.ports) if row.prediction in self.truth]
        labels = [{"prediction": name, "label": self.truth[name], "by": "demo"} for name in queue]
        return sum(self.ward.label(labels[i : i + 500]) for i in range(0, len(labels), 500))

    def look(self) -> conduct.Observation:
        """Let the watch fold in what came."""
        observed = conduct.observe(self.ports)
        assert observed is not None
        drift = next(f for f in observed.findings if f.kind == "drift")
        self.evidence.append((self.place, drift.log_e))
        return observed


def accuracy(answers: Sequence[Answer]) -> float:
    """The share of right answers, 0 for none."""
    return sum(answer.right for answer in answers) / max(1, len(answers))


def _shown(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
