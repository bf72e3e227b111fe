"""A trained run becomes a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rounds.core.errors import Fault, OurFault
from rounds.core.records import Bundle, DatasetVersion, Parents, TrainedRun
from rounds.core.specs import ExportSpec
from rounds.export.calibrated import Seen, calibrate
from rounds.export.graph import Mirrored, check_parity, to_onnx
from rounds.nets.weights import load_weights
from rounds.runtime.bundle import write
from rounds.runtime.predictor import Network

PARITY_FILMS = 256


def pack(
    run: TrainedRun, dataset: DatasetVersion, spec: ExportSpec, *, folder: Path, parent: Bundle | None = None
) -> Bundle:
    """Write the run's bundle under `folder`, calibrated as `calibrate` says; of a net that was cut from the one of
    `parent`, its variant `pruned`.

    Where the recipe trained on mirrored films and `spec.flip_average` is set, the graph averages each film with its
    mirror image, at twice the computation. Raises BadSource where a split is missing, OurFault where the run belongs to
    another data set or the exported graph answers otherwise than torch, and what `load_weights` and `write` raise.
    """
    if dataset.digest != run.data or dataset.classes != run.classes:
        fault = Fault("another data set", dataset.name, f"data {run.data}, classes {run.classes}", dataset.digest)
        raise OurFault(f"run {run.run} was not trained on {dataset.name}", [fault])
    seen = Seen(dataset, run.spec.imaging, run.classes)
    net = load_weights(run.checkpoint)
    served = Mirrored(net) if spec.flip_average and run.spec.augment.flip else net
    model = to_onnx(served, channels=run.spec.imaging.channels, size=run.spec.imaging.size)
    network = Network(model)
    compared = np.concatenate([seen.rows("val").index, seen.rows("train").index])[:PARITY_FILMS]
    check_parity(served, network, seen.pixels[compared], spec.parity)
    found = calibrate(network, seen, spec)
    return write(
        folder,
        model=model,
        classes=run.classes,
        imaging=run.spec.imaging,
        calibration=found.calibration,
        scoring=found.scoring,
        parents=Parents(run.data, run.run, run.config, run.code, parent.digest if parent else None),
        reference=found.reference,
        variant="pruned" if parent else "trained",
    )
