"""LitServe with its own best settings: batches, ZeroMQ queue (above 100 requests a second, its manual says), a worker a
core (the same), an HTTP server a worker (its default), films uploaded as files.

python litserve_app.py PORT
"""

import io
import os
import sys

import litserve as ls
import numpy as np
from common import answers, network, pixels
from PIL import Image

BATCH, WAIT_S = 32, 0.002


class Classifier(ls.LitAPI):
    def setup(self, device):  # noqa: ARG002 (LitServe passes it by name or place)
        self.session = network(1)
        self.input = self.session.get_inputs()[0].name

    def decode_request(self, request):
        return pixels(Image.open(io.BytesIO(request["file"].file.read())))

    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, x):
        return answers(self.session.run(["logits"], {self.input: x})[0])

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return output


if __name__ == "__main__":
    server = ls.LitServer(
        Classifier(max_batch_size=BATCH, batch_timeout=WAIT_S),
        accelerator="cpu",
        workers_per_device=int(os.environ.get("PEER_WORKERS", len(os.sched_getaffinity(0)))),
        fast_queue=True,
    )
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
