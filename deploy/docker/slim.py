"""Take out of an installation what serving, watching and deciding never load: run while an image is built.

    python slim.py SITE_PACKAGES

The build then imports every module that the image is for, so that a part that is missed is known at once.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import struct
import sys
from pathlib import Path

# Each line of a folder of site-packages: what of it goes.
UNUSED = (
    "**/tests",
    "**/include",
    "**/*.pyi",
    "**/*.pyx",
    "**/*.pxd",
    "pip*",
    "setuptools*",
    "pkg_resources",
    "_distutils_hack",
    "distutils-precedence.pth",
    "pyarrow/libarrow_flight*",
    "pyarrow/_flight*",
    "pyarrow/src",
    "onnxruntime/capi/libonnxruntime.so*",  # for programs in C; Python's module holds the same code
    "onnxruntime/transformers",
    "onnxruntime/quantization",
    "onnxruntime/tools",
    "onnxruntime/datasets",
    "PIL/_avif*",
    "PIL/_imagingft*",
    "PIL/_imagingtk*",
    "pillow.libs/libavif*",
    "pillow.libs/libfreetype*",
    "pillow.libs/libharfbuzz*",
    "scipy/cluster",
    "scipy/datasets",
    "scipy/differentiate",
    "scipy/fftpack",
    "scipy/integrate",
    "scipy/interpolate",
    "scipy/io",
    "scipy/misc",
    "scipy/ndimage",
    "scipy/odr",
    "scipy/signal",
    "scipy/stats",
)
SERVICES = {"s3", "sts", "sso", "sso-oidc"}  # of the cloud's 400, those that its blobs need
# OpenCV's wheel brings FFmpeg, with an OpenSSL that is out of support, and a LAPACK of its own. Nothing here plays
# films that move or solves equations with OpenCV: an empty library stands in place of each, so that the very same
# OpenCV loads (another build of it could round pixels otherwise).
IDLE = ("avcodec", "avformat", "avutil", "swscale", "swresample", "openblasp")
THEN_ORPHANS = ("vpx", "crypto", "ssl", "drm", "gfortran", "quadmath")
OPENCV = "opencv_python_headless.libs"
ELF = b"\x7fELF\x02\x01"
PT_LOAD = 1
PT_DYNAMIC = 2
SHT_DYNSYM = 11


def main(site: Path) -> None:
    """Slim the folder and say by how much."""
    before = size(site)
    for pattern in UNUSED:
        for path in list(site.glob(pattern)):
            drop(path)
    for path in list(site.glob("botocore/data/*")):
        if path.is_dir() and path.name not in SERVICES:
            drop(path)
    empty(site)
    for path in site.rglob("*.so*"):
        if path.is_file() and not path.is_symlink():
            strip(path)
    share(site)
    print(f"{site}: {before / 1e6:.0f} MB, now {size(site) / 1e6:.0f} MB")


def empty(site: Path) -> None:
    """Put empty libraries in place of those that OpenCV names and nothing here calls."""
    wanted = symbols_of(site / "cv2" / "cv2.abi3.so", defined=False)
    for path in site.glob(f"{OPENCV}/lib*"):
        if path.name.startswith(tuple(f"lib{name}-" for name in IDLE)):
            version = re.search(rb"\0(LIB(?:AV|SW)[A-Z]+_\d+)\0", path.read_bytes())
            path.write_bytes(
                empty_library(sorted(wanted & symbols_of(path, defined=True)), version[1] if version else b"")
            )
        elif path.name.startswith(tuple(f"lib{name}-" for name in THEN_ORPHANS)):
            path.unlink()


def share(site: Path) -> None:
    """Keep one of libraries that are the same, byte for byte."""
    first: dict[bytes, Path] = {}
    for path in sorted(site.rglob("*.so*")):
        if path.is_file() and not path.is_symlink():
            same = first.setdefault(hashlib.sha256(path.read_bytes()).digest(), path)
            if same != path:
                path.unlink()
                path.symlink_to(os.path.relpath(same, path.parent))


def drop(path: Path) -> None:
    """Remove a file or a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def strip(path: Path) -> None:
    """Cut off what follows the last loaded segment of a shared library: symbols and sections, which only debuggers
    read."""
    data = path.read_bytes()
    if data[:6] != ELF:
        return
    start, _, _, _, entry, count = struct.unpack_from("<QQIHHH", data, 32)
    end = start + entry * count
    for number in range(count):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", data, start + entry * number)
        if kind == PT_LOAD:
            end = max(end, offset + length)
    # where the sections were, how many, and which names them: none
    head = data[:40] + bytes(8) + data[48:60] + bytes(4) + data[64:end]
    path.write_bytes(head)


def symbols_of(path: Path, *, defined: bool) -> set[str]:
    """The names that a shared library offers, or those that it wants from others."""
    data, names = path.read_bytes(), set[str]()
    (start,) = struct.unpack_from("<Q", data, 40)
    entry, count, _ = struct.unpack_from("<HHH", data, 58)
    heads = [struct.unpack_from("<IIQQQQIIQQ", data, start + entry * number) for number in range(count)]
    for head in heads:
        if head[1] == SHT_DYNSYM:
            strings = heads[head[6]][4]
            for at in range(head[4], head[4] + head[5], 24):
                name, _, _, section = struct.unpack_from("<IBBH", data, at)
                if bool(section) == defined:
                    names.add(data[strings + name : data.index(b"\0", strings + name)].decode())
    return names - {""}


def empty_library(names: list[str], version: bytes) -> bytes:
    """A shared library (ELF, x86-64) that offers names of one version and nothing behind: who calls one crashes."""
    strings = b"\0" + version + b"\0"
    symbols = bytes(24)
    for name in names:
        symbols += struct.pack("<IBBHQQ", len(strings), 0x12, 0, 1, 64, 0)  # global, a function, where no code is
        strings += name.encode() + b"\0"
    count = len(names) + 1
    # a hash table of one bucket: every name is found by walking through all
    table = struct.pack(f"<III{count}I", 1, count, count - 1, *(max(number - 1, 0) for number in range(count)))
    versions = struct.pack(f"<{count}H", 0, *([2 if version else 1] * (count - 1)))
    named = struct.pack("<HHHHIII", 1, 0, 2, 1, elf_hash(version), 20, 0) + struct.pack("<II", 1, 0)
    body, places = b"", []
    for part in (table, symbols, strings, versions, named):
        places.append(64 + 2 * 56 + len(body))
        body += part + bytes(-len(part) % 8)
    entries = [(4, places[0]), (6, places[1]), (5, places[2]), (10, len(strings)), (11, 24)]
    if version:
        entries += [(0x6FFFFFF0, places[3]), (0x6FFFFFFC, places[4]), (0x6FFFFFFD, 1)]
    dynamic = b"".join(struct.pack("<QQ", *entry) for entry in [*entries, (0, 0)])
    at, end = 64 + 2 * 56 + len(body), 64 + 2 * 56 + len(body) + len(dynamic)
    head = ELF + b"\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", PT_LOAD, 6, 0, 0, 0, end, end, 4096)
    where = struct.pack("<IIQQQQQQ", PT_DYNAMIC, 6, at, at, at, len(dynamic), len(dynamic), 8)
    return head + load + where + body + dynamic


def elf_hash(name: bytes) -> int:
    """The hash by which the loader compares names of versions."""
    value = 0
    for letter in name:
        value = (value << 4) + letter
        value = (value ^ ((value & 0xF0000000) >> 24)) & 0x0FFFFFFF
    return value


def size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
