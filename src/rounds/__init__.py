"""Rounds: the whole life of an image classifier, with a stated error rate for every decision.

The public page: stages are functions from frozen records to a frozen record, records and specs are what they speak in,
and `open_ports` opens a workspace. A name is loaded when it is first used, so that `import rounds` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rounds.conf.resolve import resolve as resolve
    from rounds.core.errors import CallerFault as CallerFault
    from rounds.core.errors import Fault as Fault
    from rounds.core.errors import Refused as Refused
    from rounds.core.errors import RoundsError as RoundsError
    from rounds.core.errors import WorldFault as WorldFault
    from rounds.core.ports import Ports as Ports
    from rounds.core.records import Act as Act
    from rounds.core.records import Bundle as Bundle
    from rounds.core.records import DatasetVersion as DatasetVersion
    from rounds.core.records import Decision as Decision
    from rounds.core.records import EvalReport as EvalReport
    from rounds.core.records import Event as Event
    from rounds.core.records import Finding as Finding
    from rounds.core.records import GateReport as GateReport
    from rounds.core.records import Label as Label
    from rounds.core.records import ModelVersion as ModelVersion
    from rounds.core.records import Prediction as Prediction
    from rounds.core.records import Prepared as Prepared
    from rounds.core.records import TrainedRun as TrainedRun
    from rounds.core.specs import DataSpec as DataSpec
    from rounds.core.specs import ExportSpec as ExportSpec
    from rounds.core.specs import GateSpec as GateSpec
    from rounds.core.specs import ImagingSpec as ImagingSpec
    from rounds.core.specs import MonitorSpec as MonitorSpec
    from rounds.core.specs import PolicySpec as PolicySpec
    from rounds.core.specs import ServeSpec as ServeSpec
    from rounds.core.specs import TrainSpec as TrainSpec
    from rounds.data.prepare import prepare as prepare
    from rounds.evaluate.measure import measure as measure
    from rounds.evaluate.recalibrate import recalibrate as recalibrate
    from rounds.export.pack import pack as pack
    from rounds.loop.batch import predict as predict
    from rounds.loop.conduct import watch_once as watch_once
    from rounds.loop.gating import promote as promote
    from rounds.loop.gating import roll_back as roll_back
    from rounds.loop.policy import decide as decide
    from rounds.loop.tracing import audit as audit
    from rounds.loop.tracing import trace as trace
    from rounds.monitor.watch import watch as watch
    from rounds.registry.gate import gate as gate
    from rounds.runtime.predictor import Predictor as Predictor
    from rounds.train.fit import fit as fit
    from rounds.wiring.serving import open_ports as open_ports
    from rounds.wiring.settings import Settings as Settings

_PLACES = {
    "conf.resolve": ("resolve",),
    "core.errors": ("CallerFault", "Fault", "Refused", "RoundsError", "WorldFault"),
    "core.ports": ("Ports",),
    "core.records": (
        "Act", "Bundle", "DatasetVersion", "Decision", "EvalReport", "Event", "Finding", "GateReport", "Label",
        "ModelVersion", "Prediction", "Prepared", "TrainedRun",
    ),
    "core.specs": (
        "DataSpec", "ExportSpec", "GateSpec", "ImagingSpec", "MonitorSpec", "PolicySpec", "ServeSpec", "TrainSpec",
    ),
    "data.prepare": ("prepare",),
    "evaluate.measure": ("measure",),
    "evaluate.recalibrate": ("recalibrate",),
    "export.pack": ("pack",),
    "loop.batch": ("predict",),
    "loop.conduct": ("watch_once",),
    "loop.gating": ("promote", "roll_back"),
    "loop.policy": ("decide",),
    "loop.tracing": ("audit", "trace"),
    "monitor.watch": ("watch",),
    "registry.gate": ("gate",),
    "runtime.predictor": ("Predictor",),
    "train.fit": ("fit",),
    "wiring.serving": ("open_ports",),
    "wiring.settings": ("Settings",),
}  # fmt: skip
_PLACE = {name: place for place, names in _PLACES.items() for name in names}
__all__ = sorted([*_PLACE, "__version__"])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("rounds")
    if name not in _PLACE:
        raise AttributeError(f"module 'rounds' has no attribute {name!r}")
    found = getattr(import_module(f"rounds.{_PLACE[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
