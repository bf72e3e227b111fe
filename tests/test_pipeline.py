"""The repository's DVC pipeline: a clean copy runs it, skips what has not changed, and keeps versions on S3 and GCS."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.cloud import Cloud, gcs_server, s3_server

ROOT = Path(__file__).parent.parent
FILES = ("dvc.yaml", "params.yaml", ".dvc/config", ".dvc/.gitignore", ".dvcignore", "pipeline/.gitignore")
STAGES = ("prepare", "train", "export", "evaluate", "register")
OUTPUTS = ("pipeline/data", "pipeline/run", "pipeline/bundle", "pipeline/evaluation.html")
SERVERS = {"s3": s3_server, "gs": gcs_server}

pytestmark = pytest.mark.slow


class Desk:
    """A git repository of its own that holds the pipeline's files and nothing else."""

    def __init__(self, place: Path) -> None:
        self.place = place
        for name in FILES:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place / name)
        self("git", "init", "--quiet")
        self.small("phantom:n=700,seed=0,size=32", "experiment=quick train.epochs=1")
        self.commit("first")

    def __call__(self, *command: str, also: Mapping[str, str] | None = None) -> str:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        author = {f"GIT_{who}_{what}": "a@b.example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        given = {key: value for key, value in os.environ.items() if not key.startswith("ROUNDS_")}
        environment = {**given, "PATH": path, "DVC_NO_ANALYTICS": "1", **author, **(also or {})}
        done = subprocess.run(
            command, cwd=self.place, env=environment, capture_output=True, text=True, timeout=840, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def small(self, source: str, overrides: str) -> None:
        """Write parameters that take seconds."""
        (self.place / "params.yaml").write_text(f"source: {source}\nname: films\ntrain: {overrides}\n")

    def commit(self, why: str) -> str:
        self("git", "add", "dvc.yaml", "params.yaml", ".dvc", ".dvcignore", "pipeline/.gitignore")
        if (self.place / "dvc.lock").exists():
            self("git", "add", "dvc.lock")
        self("git", "commit", "--quiet", "-m", why)
        return self("git", "rev-parse", "HEAD").strip()

    def said(self, name: str) -> dict[str, object]:
        answer: dict[str, object] = json.loads((self.place / "pipeline" / f"{name}.json").read_text())
        return answer

    def bytes(self) -> dict[str, str]:
        """The digest of every file that DVC keeps, by its path."""
        paths = [path for out in OUTPUTS for path in [self.place / out, *(self.place / out).rglob("*")]]
        return {
            str(path.relative_to(self.place)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in paths
            if path.is_file()
        }


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    pytest.importorskip("dvc", reason="no DVC here: pip install 'rounds[cloud]'")
    desk = Desk(tmp_path_factory.mktemp("desk"))
    desk("dvc", "repro")
    return desk


@pytest.fixture(scope="module")
def versions(desk: Desk) -> dict[str, dict[str, str]]:
    """Two versions of everything, each a commit: what each holds, file by file."""
    first = desk.commit("first results")
    found = {first: desk.bytes()}
    desk.small("phantom:n=700,seed=1,size=32", "experiment=quick train.epochs=1 seed=1")
    desk("dvc", "repro")
    found[desk.commit("other films")] = desk.bytes()
    return found


def test_a_clean_copy_runs_from_phantoms_to_a_registered_bundle(desk: Desk) -> None:
    bundle = desk.said("export")["bundle"]
    assert desk.said("version") == {"version": "v1", "bundle": bundle}
    assert desk.said("evaluation")["bundle"] == bundle
    assert desk.said("evaluation")["data"] == desk.said("prepare")["digest"]
    assert "<svg" in (desk.place / "pipeline" / "evaluation.html").read_text()


def test_what_has_not_changed_is_skipped(desk: Desk) -> None:
    said = desk("dvc", "repro")
    assert [f"Stage '{stage}' didn't change, skipping" in said for stage in STAGES] == [True] * 5
    assert "up to date" in desk("dvc", "status")


@contextmanager
def remote(desk: Desk, kind: str, store: Cloud) -> Iterator[Mapping[str, str]]:
    """The store as DVC's default remote; the environment that leads there."""
    address = store.make_bucket("films")
    desk("dvc", "remote", "add", "--force", "--default", kind, f"{address}/dvc")
    desk("dvc", "remote", "modify", kind, "endpointurl", store.endpoint)
    if kind == "gs":
        desk("dvc", "remote", "modify", kind, "allow_anonymous_login", "true")
    yield {**store.environment, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
    desk("git", "checkout", "--quiet", ".dvc/config")


@pytest.mark.parametrize("kind", ["s3", "gs"])
def test_two_versions_come_back_from_a_store_byte_for_byte(
    desk: Desk, versions: dict[str, dict[str, str]], kind: str
) -> None:
    assert len({tuple(files.items()) for files in versions.values()}) == 2
    with SERVERS[kind]() as store, remote(desk, kind, store) as environment:
        for revision in versions:
            desk("git", "checkout", "--quiet", revision, "--", "dvc.lock", "params.yaml")
            desk("dvc", "push", also=environment)
        with without(desk.place / ".dvc" / "cache"):
            for revision, files in versions.items():
                desk("git", "checkout", "--quiet", revision, "--", "dvc.lock", "params.yaml")
                for out in OUTPUTS[:-1]:
                    shutil.rmtree(desk.place / out, ignore_errors=True)
                (desk.place / OUTPUTS[-1]).unlink(missing_ok=True)
                assert desk.bytes() == {}
                desk("dvc", "pull", also=environment)
                assert desk.bytes() == files


@contextmanager
def without(folder: Path) -> Iterator[None]:
    """The folder is away, and whatever came in its place goes."""
    aside = folder.rename(folder.with_name("aside"))
    yield
    shutil.rmtree(folder)
    aside.rename(folder)
