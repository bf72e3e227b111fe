"""The dashboard and the rules name what a real server shows, and a real Prometheus takes it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.server import Served, server
from tests.support.tracking import free_port
from tests.support.typed import ROOT
from tests.support.workspace import films_as_png, promote

DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboard.json").read_text())
RULES = (ROOT / "deploy/prometheus/rules.yml").read_text()
PNG = {"content-type": "image/png"}
NAME = re.compile(r"\brounds_[a-z_]+")
LABELS = re.compile(r"by \(([a-z, ]+)\)")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("watched") / "home"
    promote(home)
    with server(home) as served:
        for film in films_as_png(4):
            assert httpx.post(f"{served.url}/v1/predict", content=film, headers=PNG).status_code == 200
        httpx.post(f"{served.url}/v1/predict", content=b"no film", headers=PNG)
        yield served


def exposed(served: Served) -> dict[str, set[str]]:
    """Every name that the server shows, those without a value yet too, with its labels."""
    found: dict[str, set[str]] = {}
    for line in httpx.get(f"{served.url}/metrics").text.splitlines():
        if line.startswith("# TYPE "):
            name, kind = line.split()[2:4]
            endings = {"histogram": ("_bucket", "_sum", "_count")}.get(kind, ("",))
            found |= {name + ending: set() for ending in endings}
        elif not line.startswith("#"):
            name, _, rest = line.partition("{")
            found.setdefault(name.split()[0], set()).update(re.findall(r'(\w+)="', rest))
    return found


def expressions() -> dict[str, str]:
    """What each panel and the swaps' annotation ask."""
    asked = {f"panel {p['title']}: {t['refId']}": t["expr"] for p in DASHBOARD["panels"] for t in p["targets"]}
    return asked | {a["name"]: a["expr"] for a in DASHBOARD["annotations"]["list"]}


def test_the_dashboard_asks_only_for_what_the_server_shows(served: Served) -> None:
    shown = exposed(served)
    asked = {(where, name) for where, expr in expressions().items() for name in NAME.findall(expr)}
    assert {(where, name) for where, name in asked if name not in shown} == set()


def test_the_rules_ask_only_for_what_the_server_shows(served: Served) -> None:
    assert set(NAME.findall(RULES)) - set(exposed(served)) == set()


def test_the_dashboard_groups_by_labels_that_the_metrics_have(served: Served) -> None:
    shown, wrong = exposed(served), []
    for where, expr in expressions().items():
        labels = {label.strip() for group in LABELS.findall(expr) for label in group.split(",")}
        names = set(NAME.findall(expr))
        has = {"instance", "le"}.union(*(shown[name] for name in names))
        # trouble has had no kind yet on a server that is well, nor has the watch looked
        if labels - has and not names <= {"rounds_troubles_total", "rounds_watch_evidence"}:
            wrong.append((where, labels - has))
    assert wrong == []


def test_every_metric_of_the_server_is_on_the_dashboard(served: Served) -> None:
    text = " ".join(expressions().values())
    mine = {name for name in exposed(served) if name.startswith("rounds_") and not name.endswith(("_created", "_sum"))}
    unseen = {name for name in mine if name.removesuffix("_count").removesuffix("_bucket") not in text}
    assert unseen == set()


def promtool(*words: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("promtool") is None:
        pytest.skip("no promtool here: apt-get install prometheus")
    return subprocess.run(["promtool", *words], cwd=ROOT, capture_output=True, text=True)


def test_the_alerts_fire_when_they_should_and_rest_else() -> None:
    done = promtool("test", "rules", "deploy/prometheus/rules_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_real_prometheus_takes_the_configuration_and_the_numbers(served: Served, tmp_path: Path) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("no Prometheus here: apt-get install prometheus")
    text = (ROOT / "deploy/prometheus/prometheus.yml").read_text()
    text = text.replace("127.0.0.1:8000", f"127.0.0.1:{served.port}").replace("15s", "1s")
    (tmp_path / "prometheus.yml").write_text(text)
    shutil.copy(ROOT / "deploy/prometheus/rules.yml", tmp_path)
    port = free_port()
    words = [f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
    words += [f"--web.listen-address=127.0.0.1:{port}"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(["prometheus", *words], stdout=log, stderr=log)
    try:
        assert asked_of(port, "rounds_ready") == ["1"]
        assert asked_of(port, 'sum(rounds_predictions_total{job="rounds"})') == ["4"]
        assert asked_of(port, 'ALERTS{alertname="RoundsAway"}', wait=False) == []
    finally:
        process.terminate()
        process.wait(20)


def asked_of(port: int, query: str, *, wait: bool = True, limit_s: float = 40) -> list[str]:
    """What Prometheus answers, once it has something to say."""
    until = time.monotonic() + limit_s
    while True:
        try:
            said = httpx.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": query}).json()
            values = [row["value"][1] for row in said["data"]["result"]]
        except (httpx.TransportError, ValueError, KeyError):
            values = []
        if values or not wait:
            return values
        assert time.monotonic() < until
        time.sleep(0.2)
