"""Images a second, ready for the network: packed pixels with batch augmentation, against a Dataset of single images.

    python -m bench.loading            the ratios, each beside its floor
    python -m bench.loading --curve    and our own loader's throughput by the number of threads that draw ahead

Both sides make the same: uint8 batches of 128 in a fresh order with the same random changes to each image. The common
way opens each file with Pillow, resizes, augments with Pillow, and collates in a torch DataLoader with two workers.
Ours reads the memory map and augments the batch, in one thread. Rates are images a CPU second, over all processes, so
that both sides have the same cores and whatever else runs on the machine does not count. The middle of five alternated
pairs; what packing takes, once per data set, stands in the detail.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rounds.core.specs import AugmentSpec, Fit, ImagingSpec
from rounds.imaging.packed import Film, Films, write_films
from rounds.train.batches import Batch, Split, TrainBatches

FLOOR, BATCH, PAIRS, WORKERS = 25.0, 128, 5, 2
SHIFT = AugmentSpec()
AFFINE = AugmentSpec(flip=True, translate=0.07, rotate=5.0, scale=0.1, contrast=0.2, brightness=0.1)
# name: side on disk, side for the network, format, films for us, films for the common way (it is slow), changes, floor
CASES: dict[str, tuple[int, int, str, int, int, AugmentSpec, float | None]] = {
    "28 px PNG, flip and shift": (28, 28, "PNG", 4096, 2048, SHIFT, FLOOR),
    "28 px PNG, affine and tone": (28, 28, "PNG", 4096, 2048, AFFINE, None),
    "1024 px JPEG to 224, flip and shift": (1024, 224, "JPEG", 256, 256, SHIFT, FLOOR),
    "1024 px JPEG to 224, affine and tone": (1024, 224, "JPEG", 256, 256, AFFINE, None),
    "224 px JPEG, flip and shift": (224, 224, "JPEG", 1024, 512, SHIFT, None),
    "224 px JPEG, affine and tone": (224, 224, "JPEG", 1024, 512, AFFINE, None),
}


class OneByOne(Dataset[tuple[Tensor, int]]):
    """The usual Dataset: open, resize, augment with Pillow."""

    def __init__(self, paths: Sequence[Path], side: int, spec: AugmentSpec) -> None:
        self.paths, self.side, self.spec = paths, side, spec

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        image = Image.open(self.paths[place]).convert("L")
        if image.size != (self.side, self.side):
            image = image.resize((self.side, self.side), Image.Resampling.BILINEAR)
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        spec = self.spec
        across, down = (round(random.uniform(-1, 1) * spec.translate * self.side) for _ in "xy")
        if not spec.rotate:
            image = image.transform(image.size, Image.Transform.AFFINE, (1, 0, across, 0, 1, down))
        else:
            turn = random.uniform(-spec.rotate, spec.rotate)
            image = image.rotate(turn, Image.Resampling.BILINEAR, translate=(across, down))
            edge = self.side * random.uniform(-spec.scale, spec.scale) / 2
            box = (edge, edge, self.side - edge, self.side - edge)
            image = image.transform(image.size, Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)
            image = ImageEnhance.Contrast(image).enhance((1 + spec.contrast) ** random.uniform(-1, 1))
            image = ImageEnhance.Brightness(image).enhance(1 + random.uniform(-spec.brightness, spec.brightness))
        return torch.from_numpy(np.array(image))[None], place % 2


def measure() -> list[dict[str, Any]]:
    """A row for each case: value is ours over theirs, in images a second."""
    with tempfile.TemporaryDirectory() as folder:
        return [_case(name, Path(folder) / name.replace(" ", "-")) for name in CASES]


def _case(name: str, folder: Path) -> dict[str, Any]:
    on_disk, side, kind, ours, theirs, spec, floor = CASES[name]
    paths = _files(folder / "files", on_disk, kind, ours)
    started = time.process_time()
    split = packed(folder / "data", paths, side)
    packing = time.process_time() - started
    torch.set_num_threads(1)
    loader = DataLoader(OneByOne(paths[:theirs], side, spec), BATCH, shuffle=True, num_workers=WORKERS)
    batches = TrainBatches(split, BATCH, spec, seed=0)
    for side_of_the_race in (loader, batches):  # pages come into memory
        deque(side_of_the_race, maxlen=0)
    pairs = [(ours / _cpu(batches), theirs / _cpu(loader)) for _ in range(PAIRS)]
    our_rate, their_rate = (statistics.median(rates) for rates in zip(*pairs, strict=True))
    ratios = [one / other for one, other in pairs]
    return {
        "name": f"loading, {name}",
        "value": statistics.median(ratios),
        "floor": floor,
        "higher_is_better": True,
        "unit": "x",
        "detail": f"{our_rate:,.0f} against {their_rate:,.0f} images a CPU second ({min(ratios):.0f} to "
        f"{max(ratios):.0f}x); packed once in {packing:.1f} CPU s for {ours} images",
    }


def _cpu(batches: Any) -> float:
    """CPU seconds of one epoch, those of worker processes, which end with it, included."""

    def now() -> float:
        return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))

    started = now()
    deque(batches, maxlen=0)
    return now() - started


def _files(folder: Path, side: int, kind: str, n: int) -> list[Path]:
    """Films of smooth gray shapes with noise, which compress about as radiographs do."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    paths = [folder / f"{i}.{kind.lower()}" for i in range(n)]
    for path in paths:
        coarse = Image.fromarray(draw.integers(30, 220, (8, 8), dtype=np.uint8)).resize((side, side))
        film = np.asarray(coarse, np.float32) + draw.normal(0, 6, (side, side))
        Image.fromarray(film.clip(0, 255).astype(np.uint8)).save(path)
    return paths


def packed(folder: Path, paths: Sequence[Path], side: int) -> Split:
    """The films of these files as one memory-mapped array."""
    films = (Film(p.read_bytes(), "ab"[i % 2], str(i), "train", p.name) for i, p in enumerate(paths))
    made = Films(write_films(folder, "bench", ("a", "b"), films, subjects_known=False).path)
    rows = made.rows("train")
    return Split(made.pixels(ImagingSpec(side, 1, Fit.STRETCH)), rows.index, rows.labels)


def _rate(batches: Iterator[Batch], images: int, work: Callable[[Batch], object]) -> float:
    started = time.perf_counter()
    for batch in batches:
        work(batch)
    return images / (time.perf_counter() - started)


def ahead(batches: TrainBatches, workers: int) -> Iterator[Batch]:
    """The same batches, drawn ahead by so many threads: what the curve tries, and the loop does without."""
    draws = batches.draws()
    if not workers:
        yield from (draw() for draw in draws)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting = deque(pool.submit(draw) for draw in draws[: workers + 1])
        for later in range(workers + 1, len(draws) + workers + 1):
            yield waiting.popleft().result()
            if later < len(draws):
                waiting.append(pool.submit(draws[later]))


def curve() -> list[dict[str, Any]]:
    """Images a second of our loader alone, and under the training steps of the small net, by threads drawing ahead."""
    from rounds.core.specs import ModelSpec
    from rounds.nets.names import build

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("28 px PNG, affine and tone", "224 px JPEG, affine and tone"):
            on_disk, side, kind, n, _, spec, _ = CASES[name]
            n //= 2
            place = Path(folder) / name.replace(" ", "-")
            split = packed(place / "data", _files(place / "files", on_disk, kind, n), side)
            torch.set_num_threads(2)
            net = build(ModelSpec(), channels=1, classes=2, size=side)

            def step(batch: Batch, net: Any = net) -> None:
                torch.nn.functional.cross_entropy(net(batch[0])[0], batch[1]).backward()

            for what, work in (("loader alone", len), ("under training", step)):
                rates: dict[int, list[float]] = {0: [], 1: [], 2: [], 4: []}
                for _ in range(3):
                    for workers, found in rates.items():
                        batches = TrainBatches(split, BATCH, spec, seed=0)
                        found.append(_rate(ahead(batches, workers), n, work))
                by_workers = {workers: round(statistics.median(found)) for workers, found in rates.items()}
                rows.append({"name": name, "what": what, "images_per_s": by_workers})
    return rows


if __name__ == "__main__":
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--curve", action="store_true")
    for row in curve() if ask.parse_args().curve else measure():
        print(json.dumps(row))
