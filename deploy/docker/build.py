"""Build the container images and say how large they are: `make images`.

    python deploy/docker/build.py [api] [training]

Read from the environment, all optional: TOOL (buildah, or docker, podman), BASE (the image to build on; else the one
that the Dockerfiles name, and where it cannot be had, one that mmdebstrap makes of Debian's packages), TAG, TORCH (uv's
words for the build of torch), PIP_CERT (the certificate that the build's network needs, mounted as a secret) and
PIP_FIND_LINKS (a folder of wheels, mounted while building).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SCRATCH = ROOT / "build" / "containers"
DEBIAN_BASE = "localhost/rounds-base:bookworm"
PACKAGES = "python3,python3-venv,ca-certificates"
LEAN = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*")
LIMIT_MB = {"api": 500}
# Without systemd (in a container, say) crun and the systemd manager of cgroups fail, and the hard limits may be lower
# than podman's defaults.
PLAIN = """[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


def main(names: list[str]) -> int:
    """Build what is named, or all; 0, or 3 where something is missing or too large."""
    tool = os.environ.get("TOOL", "buildah")
    if shutil.which(tool) is None:
        print(f"no {tool} here: on Debian, apt-get install buildah podman runc, or TOOL=docker", file=sys.stderr)
        return 3
    environment = surroundings()
    base = os.environ.get("BASE") or found_base(tool, environment)
    sizes = {name: build(tool, name, base, environment) for name in names or ["api", "training"]}
    for name, size in sizes.items():
        limit = LIMIT_MB.get(name)
        print(f"{image(name)}: {size:.0f} MB unpacked" + (f" (limit {limit})" if limit else ""))
    (SCRATCH / "sizes.json").write_text(json.dumps(sizes))
    return 3 if any(sizes[name] > limit for name, limit in LIMIT_MB.items() if name in sizes) else 0


def surroundings() -> dict[str, str]:
    """The environment of the container tools on this machine."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ)
    if not Path("/run/systemd/private").exists():
        (SCRATCH / "containers.conf").write_text(PLAIN)
        environment.setdefault("CONTAINERS_CONF", str(SCRATCH / "containers.conf"))
        environment.setdefault("BUILDAH_ISOLATION", "chroot")
    return environment


def image(name: str) -> str:
    """The image's name and tag."""
    return f"rounds-{name}:{os.environ.get('TAG', 'latest')}"


def found_base(tool: str, environment: dict[str, str]) -> str:
    """The base that the Dockerfiles name, or, where it cannot be pulled, one of the same Debian and Python."""
    named = re.findall(r"^ARG BASE=(\S+)", (HERE / "api.Dockerfile").read_text(), re.MULTILINE)[0]
    if tool != "buildah" or there(named, environment):
        return named
    if there(DEBIAN_BASE, environment):
        return DEBIAN_BASE
    if run(["buildah", "pull", "--quiet", named], environment, limit_s=600) == 0:
        return named
    print(f"{named} cannot be pulled: making {DEBIAN_BASE} of Debian's packages", flush=True)
    if shutil.which("mmdebstrap") is None:
        sys.exit("no mmdebstrap here: on Debian, apt-get install mmdebstrap, or name an image: make images BASE=...")
    tar = SCRATCH / "base.tar"
    lean = [f"--dpkgopt=path-exclude={pattern}" for pattern in LEAN]
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", *lean, "bookworm", str(tar)]
    subprocess.run(command, env=environment, check=True)
    container = text(["buildah", "from", "scratch"], environment)
    subprocess.run(["buildah", "add", "--quiet", container, str(tar), "/"], env=environment, check=True)
    subprocess.run(["buildah", "commit", "--quiet", "--rm", container, DEBIAN_BASE], env=environment, check=True)
    tar.unlink()
    return DEBIAN_BASE


def build(tool: str, name: str, base: str, environment: dict[str, str]) -> float:
    """Build one image; its size in MB (10^6 bytes), unpacked."""
    command = [
        tool,
        "build",
        "-f",
        f"deploy/docker/{name}.Dockerfile",
        "-t",
        image(name),
        "--build-arg",
        f"BASE={base}",
    ]
    if tool != "docker":  # OCI's own format knows no health check
        command += ["--format", "docker", "--layers", *(["--pull-never"] if base.startswith("localhost/") else [])]
    if certificate := environment.get("PIP_CERT"):
        command += ["--secret", f"id=certificate,src={certificate}"]
    torch = environment.get("TORCH", "")
    if (links := environment.get("PIP_FIND_LINKS")) and Path(links).is_dir() and tool != "docker":
        command += ["--volume", f"{links}:/wheels:ro"]
        torch = torch or "--find-links /wheels"
    if name == "training" and torch:
        command += ["--build-arg", f"TORCH={torch}"]
    subprocess.run([*command, "."], cwd=ROOT, env=environment, check=True)
    manager = "podman" if tool == "buildah" else tool
    return float(text([manager, "image", "inspect", "--format", "{{.Size}}", image(name)], environment)) / 1e6


def there(name: str, environment: dict[str, str]) -> bool:
    """Whether this machine has the image."""
    return run(["buildah", "inspect", "--type", "image", name], environment) == 0


def run(command: list[str], environment: dict[str, str], limit_s: float = 60) -> int:
    """The exit code of a command that may fail."""
    quiet = subprocess.DEVNULL
    try:
        return subprocess.run(command, env=environment, stdout=quiet, stderr=quiet, timeout=limit_s).returncode
    except subprocess.TimeoutExpired:
        return 124


def text(command: list[str], environment: dict[str, str]) -> str:
    """What a command prints."""
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error.cmd[0]} failed with {error.returncode}: see above")
