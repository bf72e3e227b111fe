"""A contact sheet: films as the network will see them, augmented again and again, to be looked at before training."""

from __future__ import annotations

import io
from dataclasses import asdict

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rounds.core.records import DatasetVersion
from rounds.core.specs import AugmentSpec, TrainSpec
from rounds.imaging.packed import Films
from rounds.train.augment import augment, mixup
from rounds.train.batches import Split, open_splits, stream

_ROWS, _DRAWS = 6, 7
_SIDE, _GAP, _TEXT, _MARGIN = 112, 6, 16, 110
_INK, _PAPER = "#1f2933", "#ffffff"


def contact_sheet(spec: TrainSpec, dataset: DatasetVersion) -> bytes:
    """A PNG: six training films, every class in turn, one a row; first as it is, then in seven draws of the spec's
    augmentation, by the spec's seed. With mixup each film is blended with the one of the row above.

    Raises BadSource as `fit` does.
    """
    films = Films(dataset.path)
    train, _ = open_splits(films, spec)
    places = _in_turn(train, len(films.classes), spec.seed)
    pixels, labels = train.take(places)
    draws = [pixels, *(_draw(pixels, labels, spec, number) for number in range(_DRAWS))]
    names = [films.classes[label] for label in labels.tolist()]
    return _sheet(np.stack([draw.numpy() for draw in draws], axis=1), names, _settings(spec.augment))


def _draw(pixels: torch.Tensor, labels: torch.Tensor, spec: TrainSpec, number: int) -> torch.Tensor:
    generator = stream(spec.seed, "sheet", number)
    drawn = augment(pixels, spec.augment, generator)
    return mixup(drawn, labels[:, None].float(), spec.augment.mixup, generator)[0] if spec.augment.mixup else drawn


def _in_turn(split: Split, classes: int, seed: int) -> NDArray[np.int64]:
    """Places of six films, one of each class in turn."""
    order = torch.randperm(len(split), generator=stream(seed, "sheet")).numpy()
    each = [[int(place) for place in order if split.labels[place] == c] for c in range(classes)]
    turns = [each[i % classes][i // classes % len(each[i % classes])] for i in range(_ROWS)]
    return np.array(turns, np.int64)


def _settings(spec: AugmentSpec) -> str:
    found = [name if value is True else f"{name} {value:g}" for name, value in asdict(spec).items() if value]
    return ", ".join(found) or "no augmentation"


def _sheet(films: NDArray[np.uint8], names: list[str], title: str) -> bytes:
    """Films uint8 (rows, columns, c, h, w) on paper, with a title, a name to each row and a head to each column."""
    rows, columns = films.shape[:2]
    step, top = _SIDE + _GAP, 2 * _TEXT + 2 * _GAP
    paper = Image.new("RGB", (_MARGIN + columns * step, top + rows * step), _PAPER)
    pen = ImageDraw.Draw(paper)
    pen.text((_GAP, _GAP), title, _INK)
    for column in range(columns):
        head = "as it is" if column == 0 else f"draw {column}"
        pen.text((_MARGIN + column * step, _GAP + _TEXT), head, _INK)
    for row, name in enumerate(names):
        pen.text((_GAP, top + row * step + _SIDE // 2), name[:16], _INK)
        for column in range(columns):
            paper.paste(_tile(films[row, column]), (_MARGIN + column * step, top + row * step))
    buffer = io.BytesIO()
    paper.save(buffer, "PNG")
    return buffer.getvalue()


def _tile(film: NDArray[np.uint8]) -> Image.Image:
    """One film uint8 (c, h, w), pixels as they are where there are few of them."""
    image = Image.fromarray(film[0] if len(film) == 1 else film.transpose(1, 2, 0))
    few = film.shape[-1] < _SIDE
    return image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.NEAREST if few else Image.Resampling.BOX)
