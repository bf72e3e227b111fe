"""A bundle as a BentoML project: a service of a page, which anybody can read and change, over the same predictor."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

from rounds.core.records import Bundle

SERVICE = '''"""Bundle {digest} as a BentoML service, written by `rounds export-bento`.

    BENTOML_DO_NOT_TRACK=True bentoml serve service:Rounds
    curl -F film=@film.png http://127.0.0.1:3000/predict
"""

from pathlib import Path
from typing import Any

import bentoml
import numpy as np
from bentoml.exceptions import InvalidArgument

from rounds.core.errors import CallerFault
from rounds.core.specs import Limits
from rounds.imaging.fit import to_pixels
from rounds.runtime.bundle import read
from rounds.runtime.predictor import Predictor
from rounds.runtime.scores import scores
from rounds.runtime.verdict import verdicts

BUNDLE = Path(__file__).parent / "bundle"


@bentoml.service(name="rounds", labels={{"bundle": "{short}", "variant": "{variant}"}})
class Rounds:
    """Answers films with class, probabilities, conformal set, and whether a person should look."""

    def __init__(self) -> None:
        self.bundle = read(BUNDLE)
        self.predictor = Predictor(self.bundle)
        self.limits = Limits()

    @bentoml.api
    def predict(self, film: Path) -> dict[str, Any]:
        try:
            pixels = to_pixels(film.read_bytes(), self.bundle.imaging, self.limits)[np.newaxis]
        except CallerFault as error:
            raise InvalidArgument(str(error)) from error
        outputs = self.predictor.answer(pixels)
        found = verdicts(self.bundle, outputs, scores(self.bundle, pixels, outputs))
        classes = self.bundle.classes
        return {{
            "class": classes[found.label[0]],
            "probabilities": dict(zip(classes, found.probabilities[0].tolist(), strict=True)),
            "set": [name for name, member in zip(classes, found.members[0], strict=True) if member],
            "refer": bool(found.refer[0]),
            "reason": found.reason[0],
            "ood": float(found.ood[0]),
            "bundle": self.bundle.digest,
        }}
'''

BENTOFILE = """service: "service:Rounds"
labels:
  bundle: "{short}"
include:
  - "service.py"
  - "bundle/*"
python:
  lock_packages: false
  packages:
    - "rounds=={version}"
"""


def service_files(bundle: Bundle) -> Mapping[str, str]:
    """The texts of a BentoML project by their names; beside them the bundle is due, in a folder `bundle`."""
    facts = {
        "digest": bundle.digest,
        "short": bundle.digest[:12],
        "variant": bundle.variant,
        "version": version("rounds"),
    }
    return {"service.py": SERVICE.format(**facts), "bentofile.yaml": BENTOFILE.format(**facts)}
