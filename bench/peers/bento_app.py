"""BentoML with its own best settings: adaptive batching, a worker a core (`workers="cpu_count"`, its manual's for work
on the CPU), no access log.

bentoml serve bento_app:Classifier --port P
"""

from __future__ import annotations

import os
from typing import Any

import bentoml
import numpy as np
from common import answers, network, pixels
from PIL.Image import Image

BATCH = 32


@bentoml.service(
    workers=int(os.environ.get("PEER_WORKERS", len(os.sched_getaffinity(0)))),
    logging={"access": {"enabled": False}},
)
class Classifier:
    def __init__(self) -> None:
        self.session = network(1)
        self.input = self.session.get_inputs()[0].name

    @bentoml.api(batchable=True, max_batch_size=BATCH, route="/predict")
    def predict(self, images: list[Image]) -> list[dict[str, Any]]:
        batch = np.stack([pixels(image) for image in images])
        return answers(self.session.run(["logits"], {self.input: batch})[0])
