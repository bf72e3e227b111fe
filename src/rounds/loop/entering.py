"""What a tracked run keeps beside its training: the bundle, how it does on the validation films, and what it cost."""

from __future__ import annotations

from rounds.core.ids import write_whole
from rounds.core.ports import Ports
from rounds.core.records import Bundle, DatasetVersion, TrainedRun
from rounds.evaluate.measure import measure
from rounds.train.figures import validation_png

BUNDLES = "bundle"


def enter(ports: Ports, run: TrainedRun, dataset: DatasetVersion, bundle: Bundle) -> None:
    """Tell the tracker; nothing where there is none.

    Metrics `val/NAME` with `val/NAME_low` and `val/NAME_high` are the bundle's as it is served, on films that chose its
    operating point and temperature: for comparing runs, not for promises. `cost/seconds` and `cost/cpu_seconds` are
    those of the training loop.
    """
    if ports.runs is None:
        return
    report = measure(bundle, dataset, "val")
    figures = {"cost/seconds": run.seconds, "cost/cpu_seconds": run.cpu_seconds}
    for name, metric in report.metrics.items():
        figures |= {f"val/{name}": metric.value, f"val/{name}_low": metric.low, f"val/{name}_high": metric.high}
    ports.runs.log(run.run, figures, run.spec.train.epochs)
    picture = run.checkpoint.parent / "validation.png"
    write_whole(picture, validation_png(report.curves))
    ports.runs.keep(run.run, picture)
    ports.runs.keep(run.run, bundle.path, BUNDLES)
