"""Training on films that do not fit into the memory that is allowed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from rounds.imaging.packed import Film, write_films

HEADROOM = 40 * 2**20
# 256 pixels a side: 64 KB a film once packed, a hundredth of that on disk
SIDE, FILMS = 256, 6600

# Trains on a few films first, which shows what a batch needs; then allows that and the headroom, and trains on all.
# RLIMIT_DATA counts private memory of every kind, and not the pages of a file that is mapped for reading.
CHILD = """
import json, resource, sys, threading, time
from pathlib import Path
import numpy as np
from rounds.core.specs import AugmentSpec, ImagingSpec, LoopSpec, ModelSpec, TrainSpec
from rounds.imaging.packed import Films, open_dataset
from rounds.train.fit import fit

few, many, folder, headroom = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
spec = TrainSpec(
    imaging=ImagingSpec(int(sys.argv[5])),
    model=ModelSpec("small", width=0.125),
    augment=AugmentSpec(flip=True, translate=0.05),
    train=LoopSpec(epochs=1, batch=16, threads=1, progress=False),
)

def now(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))

peak = {"VmData": 0, "RssAnon": 0}
sys.setswitchinterval(1e-4)

def watch():
    # without a pause: the most is needed for a few milliseconds, before the first step
    while True:
        for name in peak:
            peak[name] = max(peak[name], now(name))
        time.sleep(0)

def measured(work):
    for name in peak:
        peak[name] = now(name)
    work()
    return dict(peak)

threading.Thread(target=watch, daemon=True).start()
pixels = Films(many).pixels(spec.imaging)  # packs them; a lookup afterwards
fit(spec, open_dataset(few), runs=None, folder=folder)  # what is imported and allocated once
small = measured(lambda: fit(spec, open_dataset(few), runs=None, folder=folder))
allowed = small["VmData"] + headroom
resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
large = measured(lambda: fit(spec, open_dataset(many), runs=None, folder=folder))
try:
    np.array(pixels)
    copied = True
except MemoryError:
    copied = False
print(json.dumps({"bytes": pixels.nbytes, "small": small, "large": large, "copied": copied}))
"""


def films(n: int) -> Iterator[Film]:
    random = np.random.default_rng(0)
    for i in range(n):
        label, split = "ab"[i % 2], "val" if i % 33 < 2 else "train"
        image = random.integers(0, 128, (16, 16), dtype=np.uint8) + np.uint8(100 * (i % 2))
        yield Film(cv2.imencode(".png", image)[1].tobytes(), label, str(i), split, f"{i}.png")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA and /proc/self/status are Linux's")
def test_films_ten_times_larger_than_the_memory_left_train_in_constant_memory(tmp_path):
    few, many = (
        write_films(tmp_path / str(n), "films", ("a", "b"), films(n), subjects_known=False).path for n in (640, FILMS)
    )
    arguments = [str(few), str(many), str(tmp_path / "runs"), str(HEADROOM), str(SIDE)]
    done = subprocess.run([sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["bytes"] >= 10 * HEADROOM
    assert not found["copied"], "the limit would have caught a copy"
    assert found["large"]["RssAnon"] < found["small"]["RssAnon"] + HEADROOM
