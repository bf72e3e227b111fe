"""Bundles that come of bundles, or of models trained elsewhere: optimised variants, and imports."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rounds.core.errors import BadOverride, BadRequest, CallerFault, Fault, UnknownId
from rounds.core.ids import canonical, digest, plain, restore
from rounds.core.ports import Ports
from rounds.core.records import Bundle, Parents, TrainedRun
from rounds.core.specs import ExportSpec, ImagingSpec, LaunchSpec
from rounds.costs.meter import metered
from rounds.evaluate.measure import measure
from rounds.export.bring import bring as bring_model
from rounds.export.calibrated import Seen, calibrate
from rounds.export.elsewhere import open_model
from rounds.export.inlet import AS_IS, Normalisation
from rounds.export.int8 import quantised
from rounds.export.pack import pack
from rounds.export.prune import narrowed
from rounds.export.variants import AGREEMENT, AUC_MARGIN, Comparison, compare
from rounds.loop import exchange, intake, measuring
from rounds.nets.weights import load_weights, save_weights
from rounds.registry.catalogue import Catalogue
from rounds.runtime.bundle import model_bytes, vary, write
from rounds.runtime.predictor import Network
from rounds.train.fit import fit
from rounds.train.surroundings import code_revision

# Training films: one part sets the ranges of the activations, two choose among the methods.
CALIBRATING = 384
# Real films that an imported model is tried on.
TRIED = 64
# Fine-tuning takes this share of the epochs and of the learning rate that the network was trained with.
EPOCHS, RATE = 0.5, 0.3


def optimise(ports: Ports, ref: str, spec: ExportSpec, *, data: str | None = None, keep: float = 0.5) -> dict[str, Any]:
    """Make and measure the variants of a bundle; the public answer of `rounds optimize`.

    `int8` keeps temperature and operating point of its parent, whose network it imitates, and the bias but for what the
    roundings moved; `pruned`, a network of
    its own (cut to `keep` of its width and fine-tuned), gets new ones as `spec` says. Both get their own conformal
    thresholds, monitoring frame and reference. A variant is kept, and entered in the log with its parent, only if it is
    faster at both batch sizes and its AUC non-inferior and its labels agree, all on the validation films.
    """
    bundle = measuring.open_bundle(ports, ref)
    if bundle.variant == "int8":
        fault = Fault("quantised already", bundle.digest[:12], "a float bundle", "int8", "name its parent")
        raise CallerFault("this bundle cannot be optimised further", [fault])
    dataset = intake.find(ports, data or bundle.parents.data)
    seen = Seen(dataset, bundle.imaging, bundle.classes)
    variants, before = [], dict[str, Any]()
    with tempfile.TemporaryDirectory() as place:
        drafts = {"int8": partial(int8, bundle, seen), "pruned": partial(_pruned, ports, bundle, seen, spec, keep)}
        for name, make in drafts.items():
            try:
                with metered(ports.ledger, ports.clock, "optimize", bundle.digest):
                    draft = make(Path(place))
                    found = compare(bundle, draft, seen)
            except (BadOverride, UnknownId) as error:
                variants.append(_impossible(name, str(error)))
                continue
            before = {"bytes": found.bytes_before, **{f"ms_{n}": timed.before for n, timed in found.times.items()}}
            made = _keep(ports, bundle, draft, found, spec) if found.kept else None
            variants.append({"name": name, "bundle": made, **found.public()})
    rules = {"auc_margin": AUC_MARGIN, "agreement": AGREEMENT, "speedup": 1.0}
    head = {"bundle": bundle.digest, "data": dataset.digest, "split": "val", "n": len(seen.rows("val"))}
    return {**head, "limits": rules, "before": before, "variants": variants}


def bring(
    ports: Ports,
    path: Path,
    imaging: ImagingSpec,
    spec: ExportSpec,
    *,
    data: str,
    classes: Sequence[str] = (),
    normalisation: Normalisation | None,
) -> dict[str, Any]:
    """Make a bundle of a model that was trained elsewhere; the public answer of `rounds import`.

    `classes` in the order of the model's outputs, that of the data set by default. The bundle is calibrated on the data
    set as a trained one is, and enters the log as imported: whether the model was trained on the very films of the test
    split is not known here. `absent` says which outputs monitoring and explanation have to do without.
    """
    dataset = intake.find(ports, data)
    seen = Seen(dataset, imaging, classes or dataset.classes)
    with metered(ports.ledger, ports.clock, "import", str(path.name)):
        model, ours = open_model(path, imaging, len(seen.classes))
        films = seen.pixels[seen.some("val", TRIED)]
        brought = bring_model(model, path.name, imaging, len(seen.classes), AS_IS if ours else normalisation, films)
        found = calibrate(Network(brought.model), seen, spec)
        name = digest(path.read_bytes())
        said = canonical({"imaging": imaging, "normalisation": normalisation, "classes": seen.classes, "export": spec})
        bundle = write(
            ports.bundles,
            model=brought.model,
            classes=seen.classes,
            imaging=imaging,
            calibration=found.calibration,
            scoring=found.scoring,
            parents=Parents(dataset.digest, f"imported-{name[:12]}", digest(said), name),
            reference=found.reference,
            variant="imported",
        )
    facts = {"bundle": bundle.digest, "path": str(bundle.path.relative_to(ports.home)), "run": bundle.parents.run}
    evidence = {**facts, "data": dataset.digest, "parent": None, "file": path.name, "sha256": name}
    notes = {"absent": dict(brought.absent), "notes": list(brought.notes)}
    evidence |= notes | {"export": plain(spec)}
    ports.events.append("imported", who="import", why=f"{path.name}, trained elsewhere", evidence=evidence)
    metrics = measure(bundle, dataset, "val").metrics
    val = {key: metrics[key].value for key in ("auc", "accuracy")}
    return {"bundle": bundle.digest, "path": str(bundle.path), "classes": list(bundle.classes), "val": val, **notes}


def normalisation(mean: str | None, std: str | None, scale: float | None, inside: bool) -> Normalisation | None:
    """What is said of a model's input, as it is typed: numbers with commas between them; None where nothing is said.

    Raises BadRequest for what are no numbers, and for two ways at once.
    """
    given, faults = [text for text in (mean, std, scale) if text is not None], []
    if inside and given:
        faults.append(Fault("said twice", "--normalised-inside", "it, or --mean, --std and --scale", "both"))
    numbers = {}
    for name, text, default in (("mean", mean, "0"), ("std", std, "1")):
        try:
            numbers[name] = tuple(float(part) for part in (text or default).split(","))
        except ValueError:
            faults.append(Fault("not numbers", f"--{name}", "0.5 or 0.485,0.456,0.406", repr(text)))
    if faults:
        raise BadRequest("the normalisation cannot be read", faults)
    if inside:
        return AS_IS
    return Normalisation(numbers["mean"], numbers["std"], 255.0 if scale is None else scale) if given else None


def int8(bundle: Bundle, seen: Seen, place: Path) -> Bundle:
    """Write the variant of a bundle whose convolutions are in eight bits, under `place`."""
    chosen = seen.some("train", CALIBRATING)
    calibrating = np.arange(len(chosen)) % 3 == 0
    made = quantised(model_bytes(bundle), seen.pixels[chosen[calibrating]], seen.pixels[chosen[~calibrating]])
    before = bundle.calibration
    bias = np.asarray(before.bias) + made.shift / before.temperature
    kept = replace(before, bias=tuple(bias.tolist()))
    found = calibrate(Network(made.model), seen, ExportSpec(), kept=kept)
    return vary(
        bundle,
        place,
        variant="int8",
        calibration=found.calibration,
        scoring=found.scoring,
        model=made.model,
        reference=found.reference,
    )


def _pruned(ports: Ports, bundle: Bundle, seen: Seen, spec: ExportSpec, keep: float, place: Path) -> Bundle:
    trained = _run_of(ports, bundle)
    shape = {"channels": trained.spec.imaging.channels, "size": trained.spec.imaging.size}
    net, model = narrowed(load_weights(trained.checkpoint), trained.spec.model, keep, **shape)
    weights = place / "pruned.pt"
    save_weights(weights, net, model, classes=len(trained.classes), **shape)
    loop = trained.spec.train
    tuned = replace(loop, epochs=max(1, round(loop.epochs * EPOCHS)), lr=loop.lr * RATE)
    finer = replace(trained.spec, model=model, train=tuned, launcher=LaunchSpec(), data=seen.dataset.digest)
    run = fit(finer, seen.dataset, runs=ports.runs, folder=ports.checkpoints, code=code_revision(), start=weights)
    return pack(run, seen.dataset, spec, folder=place, parent=bundle)


def _run_of(ports: Ports, bundle: Bundle) -> TrainedRun:
    """The run that made the bundle's network; UnknownId where this workspace lacks it or its weights."""
    found = Catalogue.of(ports.events.read()).run(bundle.parents.run)
    run: TrainedRun = restore(TrainedRun, found.record)
    checkpoint = ports.home / run.checkpoint
    if not checkpoint.is_file():
        raise UnknownId("the weights are gone", [Fault("no checkpoint", str(checkpoint), next="train again")])
    return replace(run, checkpoint=checkpoint)


def _keep(ports: Ports, bundle: Bundle, draft: Bundle, found: Comparison, spec: ExportSpec) -> str:
    """Bring a variant into the workspace and the log, with how its operating point was chosen where it is its own; its
    digest."""
    place = ports.bundles / draft.digest
    exchange.give_bundle(draft, place)
    facts = {"bundle": draft.digest, "path": str(place.relative_to(ports.home)), "run": draft.parents.run}
    evidence = {**facts, "data": draft.parents.data, "parent": bundle.digest, "comparison": found.public()}
    evidence |= {} if draft.variant == "int8" else {"export": plain(spec)}
    why = f"{draft.variant} of {bundle.digest[:12]}: {found.why}"
    ports.events.append("packed", who="optimize", why=why, evidence=evidence)
    return draft.digest


def _impossible(name: str, why: str) -> dict[str, Any]:
    figures = ("bytes", "ms_1", "ms_32", "speedup_1", "speedup_32", "auc_difference", "agreement")
    return {"name": name, "bundle": None, "kept": False, "why": why, **dict.fromkeys(figures)}
