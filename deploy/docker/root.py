"""Gather a root file system that holds Python, one virtual environment and the system's libraries that they load.

    python root.py ENVIRONMENT ROOT

There is no shell in it, no package manager and nothing set-uid: what is not there has no faults.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

USER = 10001
# parts of the standard library that open windows, install or test
UNUSED = ("test", "tests", "idlelib", "lib2to3", "tkinter", "turtledemo", "ensurepip", "pydoc_data", "site-packages")
UNUSED += ("dist-packages", "config-*", "lib-dynload/_tkinter*", "lib-dynload/_test*")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
FILES = {
    "etc/passwd": f"root:x:0:0:root:/:/nowhere\nrounds:x:{USER}:{USER}:rounds:/workspace:/nowhere\n",
    "etc/group": f"root:x:0:\nrounds:x:{USER}:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}


def main(environment: Path, root: Path) -> None:
    """Copy all of it and say how large it is."""
    for link in ("bin", "lib", "lib64", "sbin"):
        if Path("/", link).is_symlink():
            (root / Path("/", link).readlink()).mkdir(parents=True, exist_ok=True)
            (root / link).symlink_to(Path("/", link).readlink())
    python = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib", vars={"base": sys.base_prefix, "installed_base": sys.base_prefix}))
    shutil.copytree(environment, inside(root, environment), symlinks=True)
    shutil.copytree(library, inside(root, library), symlinks=True, ignore=shutil.ignore_patterns(*UNUSED))
    programs = [python, *environment.rglob("*.so*"), *library.rglob("*.so")]
    for path in (*chain(environment / "bin/python"), *needed(programs, environment)):
        copy(path, root)
    if CERTIFICATES.is_file():
        copy(CERTIFICATES, root)
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for name, mode, owner in (("tmp", 0o1777, 0), ("workspace", 0o755, USER), ("proc", 0o755, 0), ("dev", 0o755, 0)):
        (root / name).mkdir(mode=mode)
        (root / name).chmod(mode)
        shutil.chown(root / name, owner, owner)
    print(f"{root}: {sum(path.lstat().st_size for path in root.rglob('*')) / 1e6:.0f} MB")


def inside(root: Path, path: Path) -> Path:
    """Where a path lies below the new root."""
    return root / path.relative_to("/")


def chain(link: Path) -> Iterator[Path]:
    """A link and what it leads to, link by link."""
    while True:
        yield link
        if not link.is_symlink():
            return
        link = link.parent / link.readlink()


def needed(programs: list[Path], environment: Path) -> Iterator[Path]:
    """The libraries outside the environment that programs and libraries load, and the loader itself."""
    said = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False).stdout
    for found in set(re.findall(r"(?:=> |^\s+)(/\S+) \(0x", said, re.MULTILINE)):
        if not Path(found).is_relative_to(environment):
            yield from chain(Path(found))


def copy(path: Path, root: Path) -> None:
    """Copy a file, or a link as a link, to where it lies below the new root."""
    target = inside(root, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.is_symlink() and not target.exists():
        shutil.copy2(path, target, follow_symlinks=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
