"""The numbers of docs/studies/robustness.md: which recipe and which operating point keep on films from elsewhere?

    python bench/study_robustness.py OUT [--recipes base,flip,...] [--seeds 2] [--folds random,groups,...] [--baseline]

Real films are needed (ROUNDS_DATASETS). OUT keeps prepared data and scores: what is there is not made again.
The 100-epoch ResNet-18 takes half an hour of one core with AMX, a recipe 15 seconds a seed and fold.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import cross_entropy

from rounds.conf.resolve import resolve
from rounds.core.records import DatasetVersion
from rounds.core.specs import AugmentSpec, DataSpec, ImagingSpec, ModelSpec, OperatingSpec, TrainSpec
from rounds.data.prepare import CHEST_XRAY_SUBJECT, prepare
from rounds.imaging.packed import Films, Rows
from rounds.imaging.stress import stress
from rounds.nets.names import build
from rounds.nets.network import Network
from rounds.nets.weights import load_weights
from rounds.stats.calibrate import fit_temperature_bias
from rounds.stats.intervals import cluster_bootstrap
from rounds.stats.metrics import auc
from rounds.stats.operating import operating_threshold
from rounds.train.augment import augment
from rounds.train.fit import fit

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Interval = tuple[float, float, float]
SOURCES = {"npz": ("pneumoniamnist_trainval.npz", None), "tar": ("chest_xray_224.tar", CHEST_XRAY_SUBJECT)}
SPEC = ImagingSpec()  # 28 pixels, gray
BASE = ["experiment=pneumonia28", "train.progress=false", "train.threads=1"]
RECIPES: Mapping[str, Sequence[str]] = {  # what each sets beside pneumonia28
    "pneumonia28": (),
    "no average of weights": ("train.ema=0",),
    "milder tones": ("augment.brightness=0.1", "augment.contrast=0.2", "augment.gamma=0.2"),
    "wilder tones": ("augment.brightness=0.3", "augment.contrast=1", "augment.gamma=1"),
    "mirrored": ("augment.flip=true",),
    "turned and scaled": ("augment.rotate=8", "augment.scale=0.12"),
    "cut-out": ("augment.cutout=0.3",),
    "mixup": ("augment.mixup=0.3",),
    "twice as wide": ("model.width=2",),
    "half the epochs": ("train.epochs=4",),
    "twice the epochs": ("train.epochs=16",),
    "only shifted": tuple(f"augment.{kind}=0" for kind in ("brightness", "contrast", "gamma", "noise", "blur")),
}
EPOCHS, BATCH, LR = 100, 128, 1e-3


@dataclass(frozen=True)
class Known:
    """The npz's films with what the tar tells of them: labels, subjects, file names and splits, each (n,)."""

    dataset: DatasetVersion
    pixels: Pixels
    rows: Rows
    tar: Pixels  # the same films squashed to 224 pixels, uint8 (n, 1, 224, 224)
    subjects: npt.NDArray[np.str_]
    names: npt.NDArray[np.str_]
    splits: npt.NDArray[np.str_]


@dataclass(frozen=True)
class Fold:
    """Places of the films to train on, to choose the threshold on, and to test on; no subject of the test is in the
    others."""

    train: Ints
    val: Ints
    test: Ints


@dataclass(frozen=True)
class Scored:
    """Log-odds of one network for val and test films, plain and stressed, each (n,)."""

    val: Floats
    val_stressed: Floats
    test: Floats
    test_stressed: Floats


def known(out: Path) -> Known:
    """Prepare both sources and find each film of the npz among those of the tar."""
    npz, tar = (prepared(out, name) for name in SOURCES)
    pixels, large = np.array(npz.pixels(SPEC)), tar.pixels(replace(SPEC, size=224))
    if not (out / "match.npy").exists():
        np.save(out / "match.npy", match(pixels, large))
    found = np.load(out / "match.npy")
    there, rows = tar.rows(), npz.rows()
    assert (there.labels[found] == rows.labels).all(), "the two sources name the classes in the same order"
    return Known(
        npz.dataset,
        pixels,
        rows,
        large[found],
        np.array([there.subjects[i] for i in found]),
        np.array([there.names[i] for i in found]),
        np.array([npz.split(i) for i in range(len(npz))]),
    )


def prepared(out: Path, name: str) -> Films:
    """The data set of a source; prepared once, and found again by the name of its folder."""
    file, subject = SOURCES[name]
    note = out / f"{name}.txt"
    if not note.exists():
        source = Path(os.environ.get("ROUNDS_DATASETS", "datasets")) / file
        note.write_text(prepare(DataSpec(str(source), name, subject), folder=out / "data").dataset.path.name)
    return Films(out / "data" / note.read_text())


def match(small: Pixels, large: Pixels) -> Ints:
    """For each film of 28 pixels the film of 224 that it was cut from: the highest correlation over centre crops.

    PneumoniaMNIST is the centre square of the original, the tar the whole of it, squashed.
    """
    wanted, best, found = _unit(small), np.full(len(small), -1.0), np.zeros(len(small), np.int64)
    for aspect in np.linspace(0.55, 1.05, 21):
        side = round(224 * min(aspect, 1 / aspect))
        start = (224 - side) // 2
        cut = slice(start, start + side)
        crops = large[:, 0, :, cut] if aspect <= 1 else large[:, 0, cut, :]
        shrunk = [cv2.resize(np.ascontiguousarray(crop), (28, 28), interpolation=cv2.INTER_AREA) for crop in crops]
        place, value = (likeness := wanted @ _unit(np.stack(shrunk)).T).argmax(1), likeness.max(1)
        found, best = np.where(value > best, place, found), np.maximum(value, best)
    return found


def _unit(films: Pixels) -> npt.NDArray[np.float32]:
    flat = films.reshape(len(films), -1).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    return np.asarray(flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6))


def folds(films: Known) -> dict[str, Fold]:
    """Random subjects, then real differences between groups of films: two kinds of normals (IM, NORMAL2) and of
    pneumonia (bacterial, viral), and early and late numbers."""
    names = films.names
    group = np.select([np.char.find(names, word) >= 0 for word in ("NORMAL2", "IM-", "bacteria")], [1, 0, 2], 3)
    number = np.array([int(re.findall(r"(?:person|IM-)(\d+)", name)[0]) for name in names])
    late = np.zeros(len(names), bool)
    for kinds in ([0], [1], [2, 3]):
        inside = np.isin(group, kinds)
        late |= inside & (number > np.quantile(number[inside], 0.6))
    train = np.flatnonzero(films.splits == "train")
    held = _without(films, np.flatnonzero(films.splits != "train"), train)
    choose = films.splits[held] == "val"
    return {
        "random": Fold(train, held[choose], held[~choose]),
        "NORMAL2 and virus": _apart(films, np.isin(group, [0, 2])),
        "IM and bacteria": _apart(films, np.isin(group, [1, 3])),
        "early": _apart(films, late),
        "late": _apart(films, ~late),
    }


def _apart(films: Known, inside: npt.NDArray[np.bool_]) -> Fold:
    """Train and choose inside (15 % of its subjects), test outside."""
    here, there = np.flatnonzero(inside), np.flatnonzero(~inside)
    subjects = np.unique(films.subjects[here])
    drawn = np.random.default_rng(0).choice(subjects, int(0.15 * len(subjects)), replace=False)
    val = np.isin(films.subjects[here], drawn)
    return Fold(here[~val], here[val], _without(films, there, here))


def _without(films: Known, places: Ints, seen: Ints) -> Ints:
    """Those places whose subjects are not among the seen ones."""
    return places[~np.isin(films.subjects[places], films.subjects[seen])]


def rows_at(films: Known, places: Ints) -> Rows:
    """The manifest's rows of these films."""
    rows = films.rows
    subjects, digests, names = ([column[i] for i in places] for column in (rows.subjects, rows.digests, rows.names))
    attributes = [rows.attributes[i] for i in places]
    return Rows(rows.index[places], rows.labels[places], subjects, digests, names, attributes)


def train_recipe(films: Known, fold: Fold, spec: TrainSpec, folder: Path) -> Network:
    """The product's own training on the fold."""
    rows = rows_at(films, fold.train), rows_at(films, fold.val)
    return load_weights(fit(spec, films.dataset, runs=None, folder=folder, rows=rows).checkpoint)


def train_baseline(films: Known, fold: Fold, seed: int) -> Network:
    """ResNet-18 as MedMNIST's authors train theirs (Adam, 0.001, a tenth of it after half and three quarters), with
    mirroring and shifts; in bfloat16 where that is faster."""
    torch.manual_seed(seed)
    net = build(ModelSpec("resnet18"), channels=1, classes=2, size=SPEC.size)
    x, y = torch.from_numpy(films.pixels[fold.train]), torch.from_numpy(films.rows.labels[fold.train])
    net.prepare(x)
    net.train()
    optimizer = torch.optim.Adam(net.parameters(), lr=LR)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [EPOCHS // 2, EPOCHS * 3 // 4], gamma=0.1)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(EPOCHS):
        order = torch.randperm(len(x), generator=generator)
        for start in range(0, len(x) - BATCH // 2, BATCH):
            drawn = order[start : start + BATCH]
            batch = augment(x[drawn], AugmentSpec(flip=True, translate=0.07), generator)
            with torch.autocast("cpu", torch.bfloat16):
                logits = net(batch)[0]
            loss = cross_entropy(logits.float(), y[drawn])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch annotates nothing here
            optimizer.step()
        schedule.step()
    return net.eval()


def score(net: Network, films: Known, fold: Fold, *, mirrored: bool) -> Scored:
    """Log-odds for the fold's films, plain and stressed, as the bundle's graph would give them."""
    answers = []
    for places, seed in ((fold.val, 1), (fold.test, 2)):
        plain, labels = films.pixels[places], films.rows.labels[places]
        answers += [log_odds(net, batch, mirrored) for batch in (plain, stress(plain, labels, seed=seed)[0])]
    return Scored(*answers)


@torch.no_grad()
def log_odds(net: Network, pixels: Pixels, mirrored: bool) -> Floats:
    """Log-odds of pneumonia (n,), the mean with the mirror image where the recipe mirrors."""
    x = torch.from_numpy(np.ascontiguousarray(pixels))
    looks = [x, x.flip(3)] if mirrored else [x]
    logits = torch.stack([torch.cat([net(part)[0] for part in torch.split(look, 512)]) for look in looks]).mean(0)
    return (logits[:, 1] - logits[:, 0]).double().numpy()


def scored(films: Known, fold: Fold, out: Path, key: str, train: Callable[[], Network], *, mirrored: bool) -> Scored:
    """The scores under this key, from OUT or from a training."""
    path = out / f"{re.sub('[^a-zA-Z0-9]+', '-', key)}.npz"
    if not path.exists():
        found = score(train(), films, fold, mirrored=mirrored)
        np.savez(path, **{name: getattr(found, name) for name in Scored.__dataclass_fields__})
    return Scored(**dict(np.load(path)))


Found = Mapping[tuple[str, str], list[Scored]]

RULES: Mapping[str, Callable[[Ints, Floats, Ints, Floats], float]] = {
    "0.5, val's own class mix": lambda y, s, _y, _s: _even_odds(y, s),
    "0.5, equal class mix": lambda y, s, _y, _s: _even_odds(*_balanced(y, s)),
    "0.5, equal mix, val and stressed": lambda y, s, ys, ss: _even_odds(*_balanced(y, s, ys, ss)),
    "Youden, val": lambda y, s, _y, _s: _youden(y, s),
    "Youden, stressed val": lambda _y, _s, ys, ss: _youden(ys, ss),
    "Youden, val and stressed (robust)": lambda y, s, ys, ss: _youden(y, s, (ys, _share(ss))),
    "middle of the medians": lambda y, s, _y, _s: float(np.median(s[y == 1]) + np.median(s[y == 0])) / 2,
}


def _youden(y: Ints, s: Floats, stressed: tuple[Ints, Floats] | None = None) -> float:
    p = operating_threshold(y, _share(s), OperatingSpec(), stressed=stressed)
    return float(np.log(p / (1 - p)))


def _share(s: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-s)))


def _even_odds(y: Ints, s: Floats) -> float:
    """The log-odds that temperature and bias turn into 0.5."""
    temperature, bias = fit_temperature_bias(np.stack([np.zeros_like(s), s], 1), y)
    return (bias[0] - bias[1]) * temperature


def _balanced(y: Ints, s: Floats, ys: Ints | None = None, ss: Floats | None = None) -> tuple[Ints, Floats]:
    """Films of the smaller class as often as the larger's, and the stressed ones, which are so already."""
    places = np.concatenate([np.resize(np.flatnonzero(y == c), np.bincount(y).max()) for c in (0, 1)])
    more = (np.empty(0, np.int64), np.empty(0)) if ys is None or ss is None else (ys, ss)
    return np.concatenate([y[places], more[0]]), np.concatenate([s[places], more[1]])


def right(y: Ints, s: Floats, threshold: float) -> float:
    """Accuracy where both classes are as frequent."""
    return float(((s[y == 1] > threshold).mean() + (s[y == 0] <= threshold).mean()) / 2)


def difference(y: Ints, ours: Sequence[Floats], theirs: Floats, subjects: npt.NDArray[np.str_]) -> Interval:
    """Mean AUC of our networks minus theirs on the same films, and its 95 % interval by a bootstrap over subjects."""

    def gain(weights: npt.NDArray[np.float32]) -> dict[str, Floats]:
        mean = np.mean([weighted_auc(y, one, weights) for one in ours], 0)
        return {"gain": mean - weighted_auc(y, theirs, weights)}

    low, high = np.quantile(cluster_bootstrap(list(subjects), gain)["gain"], [0.025, 0.975])
    return float(gain(np.ones((len(y), 1), np.float32))["gain"][0]), float(low), float(high)


def weighted_auc(y: Ints, s: Floats, weights: npt.NDArray[np.float32]) -> Floats:
    """AUC (B,) of scores (n,) without ties, for weights (n, B)."""
    order = np.argsort(s)
    w, positive = weights[order].astype(np.float64), (y[order] == 1)[:, None]
    below = np.cumsum(w * ~positive, 0)
    wins = (w * positive * below).sum(0)
    return np.asarray(wins / ((w * positive).sum(0) * below[-1]))


def areas(films: Known, fold: Fold, found: Scored) -> tuple[float, float]:
    """AUC on the fold's test films, plain and stressed."""
    y = films.rows.labels[fold.test]
    return auc(y, found.test), auc(y[stressed_places(films, fold.test, 2)], found.test_stressed)


def stressed_places(films: Known, places: Ints, seed: int) -> Ints:
    """Which of these films stand in the rows of their stress set."""
    return stress(films.pixels[places], films.rows.labels[places], seed=seed)[1]


def _print_areas(films: Known, chosen: Mapping[str, Fold], recipe: str, found: Found) -> None:
    print(f"\n{recipe}: AUC on the test films, plain / stressed, mean over seeds")
    for name, fold in chosen.items():
        plain, stressed = np.mean([areas(films, fold, one) for one in found[recipe, name]], 0)
        print(f"  {name:18} {plain:.4f} / {stressed:.4f}")


def main() -> None:
    """Train what is asked for and print the tables."""
    asked = _arguments()
    asked.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    films = known(asked.out)
    everything = folds(films)
    chosen = {name: everything[name] for name in asked.folds.split(",")} if asked.folds else everything
    for name, fold in chosen.items():
        print(f"fold {name}: train {len(fold.train)}, val {len(fold.val)}, test {len(fold.test)}")
    found: dict[tuple[str, str], list[Scored]] = {}
    for recipe in asked.recipes.split(","):
        for name, fold in chosen.items():
            found[recipe, name] = [_recipe(films, fold, asked.out, recipe, name, s) for s in range(asked.seeds)]
        _print_areas(films, chosen, recipe, found)
        _print_rules(films, chosen, recipe, found)
    if asked.baseline:
        fold = everything["random"]
        base = scored(films, fold, asked.out, "baseline", lambda: train_baseline(films, fold, 0), mirrored=True)
        _print_baseline(films, fold, base, {r: found[r, "random"] for r in asked.recipes.split(",")})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipes", default="pneumonia28", help=", ".join(RECIPES))
    parser.add_argument("--folds", default="", help="all of them unless named")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--baseline", action="store_true")
    return parser.parse_args()


def _recipe(films: Known, fold: Fold, out: Path, recipe: str, name: str, seed: int) -> Scored:
    spec, _ = resolve([*BASE, *RECIPES[recipe], f"seed={seed}"])
    made = lambda: train_recipe(films, fold, spec, out / "runs")  # noqa: E731
    return scored(films, fold, out, f"{recipe}-{name}-{seed}", made, mirrored=spec.augment.flip)


def _print_rules(films: Known, chosen: Mapping[str, Fold], recipe: str, found: Found) -> None:
    print(f"{recipe}: balanced accuracy on the test films, plain / stressed, mean over folds and seeds")
    for rule, choose in RULES.items():
        values = []
        for name, fold in chosen.items():
            y_val, y = films.rows.labels[fold.val], films.rows.labels[fold.test]
            y_val_stressed = y_val[stressed_places(films, fold.val, 1)]
            y_stressed = y[stressed_places(films, fold.test, 2)]
            for one in found[recipe, name]:
                threshold = choose(y_val, one.val, y_val_stressed, one.val_stressed)
                values.append((right(y, one.test, threshold), right(y_stressed, one.test_stressed, threshold)))
        plain, stressed = np.mean(values, 0)
        print(f"  {rule:34} {plain:.4f} / {stressed:.4f}")


def _print_baseline(films: Known, fold: Fold, base: Scored, recipes: Mapping[str, list[Scored]]) -> None:
    y, places = films.rows.labels[fold.test], stressed_places(films, fold.test, 2)
    subjects = films.subjects[fold.test]
    print("\nResNet-18, 100 epochs: AUC plain {:.4f} / stressed {:.4f}".format(*areas(films, fold, base)))
    for recipe, seeds in recipes.items():
        for name, ours in [*((f"seed {i}", [one]) for i, one in enumerate(seeds)), ("all seeds", seeds)]:
            plain = difference(y, [one.test for one in ours], base.test, subjects)
            hard = difference(y[places], [one.test_stressed for one in ours], base.test_stressed, subjects[places])
            print(f"  {recipe}, {name}, minus ResNet-18: plain {_interval(plain)}, stressed {_interval(hard)}")


def _interval(found: Interval) -> str:
    return "{:+.4f} ({:+.4f} to {:+.4f})".format(*found)


if __name__ == "__main__":
    main()
