"""Load a server with Locust, in a process of its own, and print what came of it: `make load`.

    python deploy/load/run.py [--url URL] [--seconds 30] [--users 16] [--workers N] [--ratio 25] [--out build/load.json]

Without --url a server of its own is loaded: a model of a minute's training in build/load. The exit code is 4 where a
request failed, or where the slowest answers of one kind took more than --ratio times the median of that kind: never a
matter of the machine's speed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = Path(sys.executable).parent
PLACE = ROOT / "build" / "load"
ENOUGH = 200  # answers of a kind before its 99th percentile says something
COLUMNS = ("requests", "failures", "per_second", "p50", "p95", "p99", "max")


def main() -> int:
    """Load, print the table, judge."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--url")
    options.add_argument("--home", type=Path, default=PLACE / "home")
    options.add_argument("--seconds", type=int, default=30)
    options.add_argument("--users", type=int, default=16)
    options.add_argument("--workers", type=int)
    options.add_argument("--ratio", type=float, default=25.0)
    options.add_argument("--out", type=Path, default=ROOT / "build" / "load.json")
    given = options.parse_args()
    films(PLACE / "films")
    if given.url:
        found = load(given.url, given.seconds, given.users)
    else:
        champion(given.home)
        with serving(given.home, given.workers) as url:
            found = load(url, given.seconds, given.users)
    complaints = judged(found, given.ratio)
    report = {"seconds": given.seconds, "users": given.users, **found, "ratio_limit": given.ratio, "ok": not complaints}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(report, indent=2))
    show(found, complaints)
    print(f"stored in {given.out}")
    return 4 if complaints else 0


def load(url: str, seconds: int, users: int) -> dict[str, Any]:
    """Run Locust until its time is up; what it wrote. A run that ends otherwise ends this one too."""
    out = PLACE / "locust.json"
    out.unlink(missing_ok=True)
    told = {"ROUNDS_LOAD_FILMS": str(PLACE / "films"), "ROUNDS_LOAD_OUT": str(out)}
    if key := os.environ.get("KEY"):
        told["ROUNDS_KEY"] = key
    warm(url)
    command = [BIN / "locust", "-f", ROOT / "deploy/load/locustfile.py", "--headless", "--only-summary", "--host", url]
    command += ["-u", str(users), "-r", str(users), "-t", f"{seconds}s", "--exit-code-on-error", "0", "--skip-log"]
    done = subprocess.run(command, env=os.environ | told, capture_output=True, text=True, timeout=seconds + 120)
    if done.returncode or not out.is_file():
        sys.exit(f"Locust ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return dict(json.loads(out.read_text()))


def warm(url: str) -> None:
    """Send one film of each kind before anything is measured; whatever is wrong is Locust's to find."""
    key = {"authorization": f"Bearer {os.environ['KEY']}"} if os.environ.get("KEY") else {}
    for path in (PLACE / "films").glob("*-0.*"):
        headers = {"content-type": "application/octet-stream"} | key
        with suppress(OSError):
            asked = urllib.request.Request(f"{url}/v1/predict", path.read_bytes(), headers)
            urllib.request.urlopen(asked, timeout=30).close()


def judged(found: dict[str, Any], ratio: float) -> list[str]:
    """What is wrong: failures, kinds that were never answered, and slowest answers far from the median."""
    said = [f"{fault['n']} x {fault['kind']}: {fault['what']}" for fault in found["faults"]]
    if not found["total"]["requests"]:
        said.append("nothing was answered")
    for kind, figures in found["kinds"].items():
        if figures["requests"] >= ENOUGH and figures["p99"] > ratio * max(figures["p50"], 1):
            said.append(f"{kind}: p99 {figures['p99']} ms is over {ratio:g} times p50 {figures['p50']} ms")
    return said


def show(found: dict[str, Any], complaints: list[str]) -> None:
    """Print the table; times are milliseconds."""
    print(f"{'films':<8}" + "".join(f"{name:>12}" for name in COLUMNS))
    for kind, figures in [*found["kinds"].items(), ("all", found["total"])]:
        print(f"{kind:<8}" + "".join(f"{figures[name] or 0:>12.1f}" for name in COLUMNS))
    print("\n".join(f"FAILED {said}" for said in complaints) or "no request failed")


def films(place: Path) -> None:
    """Draw the mix once: 28-pixel PNG, 224-pixel JPEG, full-size JPEG, DICOM where pydicom is there, and bad ones."""
    drawn = place.with_name("drawn")
    if drawn.exists():
        return
    import cv2

    from rounds.imaging.fit import encode_png
    from rounds.imaging.phantom import draw

    place.mkdir(parents=True, exist_ok=True)
    jpeg = [cv2.IMWRITE_JPEG_QUALITY, 90]
    for number, film in enumerate(draw(40, seed=11, size=224)):
        small = cv2.resize(film.pixels, (28, 28), interpolation=cv2.INTER_AREA)
        (place / f"small-{number}.png").write_bytes(encode_png(small))
        (place / f"photo-{number}.jpg").write_bytes(cv2.imencode(".jpg", film.pixels, jpeg)[1].tobytes())
        if number < 4:
            full = cv2.resize(film.pixels, (2000, 1600), interpolation=cv2.INTER_CUBIC)
            (place / f"full-{number}.jpg").write_bytes(cv2.imencode(".jpg", full, jpeg)[1].tobytes())
            (place / f"bad-{number}.bin").write_bytes(encode_png(small)[: 40 * (number + 1)])
        if number < 10 and (data := dicom(film.pixels)):
            (place / f"dicom-{number}.dcm").write_bytes(data)
    drawn.touch()


def dicom(pixels: Any) -> bytes | None:
    """A film as DICOM, or nothing where pydicom is not installed."""
    try:
        from pydicom import Dataset, dcmwrite
        from pydicom.dataset import FileMetaDataset
        from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid
    except ModuleNotFoundError:
        return None
    import io

    film, film.file_meta = Dataset(), FileMetaDataset()  # type: ignore[misc]
    film.SOPClassUID = film.file_meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.Modality, film.PhotometricInterpretation, film.SamplesPerPixel = "CR", "MONOCHROME2", 1
    film.Rows, film.Columns = pixels.shape
    film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 8, 8, 7, 0
    film.PixelData = pixels.tobytes()
    sink = io.BytesIO()
    dcmwrite(sink, film, enforce_file_format=True)
    return sink.getvalue()


def champion(home: Path) -> None:
    """Train and promote a model of phantoms, as a user would, where the workspace has none."""
    rounds = [str(BIN / "rounds"), "--home", str(home)]
    quiet: dict[str, Any] = {"cwd": PLACE, "stdout": subprocess.DEVNULL, "check": True}
    models = subprocess.run([*rounds, "models", "--json"], cwd=PLACE, capture_output=True, text=True)
    if models.returncode == 0 and json.loads(models.stdout).get("champion"):
        return
    print("making a model to serve", flush=True)
    subprocess.run([*rounds, "data", "prepare", "phantom:n=3000,seed=0,size=32", "--name", "films"], **quiet)
    subprocess.run([*rounds, "train", "--data", "films", "experiment=phantom", "tracking.name=none"], **quiet)
    subprocess.run([*rounds, "promote", "latest"], **quiet)


@contextmanager
def serving(home: Path, workers: int | None) -> Iterator[str]:
    """A server of its own on a free loopback port; its address, once it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [BIN / "rounds", "--home", home, "serve", "--port", str(port)]
    command += ["--workers", str(workers)] if workers is not None else []
    with (PLACE / "server.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            await_ready(server, url)
            yield url
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)


def await_ready(server: subprocess.Popen[bytes], url: str, limit_s: float = 60) -> None:
    """Wait until films are answered; end where that does not come."""
    until = time.monotonic() + limit_s
    while True:
        try:
            urllib.request.urlopen(f"{url}/health/ready", timeout=2).close()
            return
        except OSError:
            if server.poll() is not None or time.monotonic() > until:
                sys.exit(f"the server did not come up: see {PLACE / 'server.log'}")
            time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
