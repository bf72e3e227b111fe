"""Load by wrk, and what it costs: the CPU seconds and the memory of a process and all that it started."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("serving.lua")
TICKS = os.sysconf("SC_CLK_TCK")
MAPPED = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ (\d+)\s*(.*)$")


@dataclass(frozen=True)
class Load:
    """One run of wrk: answers, seconds, how many failed (another status than 2xx or 3xx, a broken line, no answer in
    two seconds), and the latency's percentiles in milliseconds."""

    requests: int
    seconds: float
    failed: int
    p50: float
    p95: float
    p99: float


def wrk(url: str, bodies: Path, content_type: str, connections: int, seconds: int) -> Load:
    """Send the bodies of a file over and over from so many connections; RuntimeError with wrk's words if it fails."""
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--timeout",
        "20s",
        "-s",
        str(SCRIPT),
        url,
        "--",
        str(bodies),
    ]
    done = subprocess.run([*command, content_type], capture_output=True, text=True, timeout=seconds + 60)
    said = [line for line in done.stdout.splitlines() if line.startswith("JSON ")]
    if done.returncode or not said:
        raise RuntimeError(f"wrk failed against {url}: {done.stdout[-500:]}{done.stderr[-500:]}")
    found = json.loads(said[-1][5:])
    failed = found["bad_status"] + found["broken"] + found["late"]
    return Load(found["requests"], found["seconds"], failed, found["p50"], found["p95"], found["p99"])


def has_wrk() -> bool:
    """Whether wrk is installed."""
    return shutil.which("wrk") is not None


def tree(pid: int) -> list[int]:
    """The process and all that descend from it."""
    found, at = [pid], 0
    while at < len(found):
        for task in Path(f"/proc/{found[at]}/task").glob("*/children"):
            try:
                found += [int(child) for child in task.read_text().split()]
            except OSError:
                continue
        at += 1
    return found


def cpu_seconds(pid: int) -> float:
    """CPU seconds that the tree has used so far, those of children that have ended among them."""
    ticks = 0
    for one in tree(pid):
        try:
            stat = Path(f"/proc/{one}/stat").read_text()
        except OSError:
            continue
        # The name, in brackets, may hold blanks; utime, stime, cutime, cstime are fields 14 to 17.
        ticks += sum(map(int, stat.rsplit(")", 1)[1].split()[11:15]))
    return ticks / TICKS


def memory_mb(pid: int) -> float:
    """Memory of the tree in MB: what is each process's own, and each mapped file once, where it takes most."""
    own, files = 0, dict[str, int]()
    for one in tree(pid):
        try:
            text = Path(f"/proc/{one}/smaps").read_text()
        except OSError:
            continue
        mine, mapped = _mapped(text)
        own += mine
        for path, size in mapped.items():
            files[path] = max(size, files.get(path, 0))
    return (own + sum(files.values())) / 1024


def _mapped(smaps: str) -> tuple[int, dict[str, int]]:
    """kB of its own, and kB by mapped file."""
    own, files, path = 0, defaultdict[str, int](int), ""
    held = 0
    for line in smaps.splitlines():
        if header := MAPPED.match(line):
            path = header[2] if header[1] != "0" else ""
        elif line.startswith("Rss:"):
            held = int(line.split()[1])
        elif line.startswith("Anonymous:"):
            anonymous = int(line.split()[1])
            own += anonymous
            if path:
                files[path] += held - anonymous
    return own, dict(files)
