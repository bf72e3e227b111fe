"""A workspace is backed up while it answers, and what is restored answers too."""

from __future__ import annotations

import http.client
import json
import threading
from pathlib import Path

from tests.support.commands import rounds
from tests.support.server import Served, server
from tests.support.workspace import films_as_png, opened, promote

from rounds.core.ids import digest


def ask(served: Served, film: bytes) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    try:
        connection.request("POST", "/v1/predict", film, {"content-type": "image/png"})
        answer = connection.getresponse()
        body = json.loads(answer.read())
        assert answer.status == 200, body
        return str(body["id"])
    finally:
        connection.close()


def test_a_backup_of_a_server_under_load_holds_every_answer_given_before_and_the_image_of_each(tmp_path: Path) -> None:
    home, there, file = tmp_path / "home", tmp_path / "there", tmp_path / "rounds.tar"
    promote(home)
    films, answered, ending = films_as_png(200), list[str](), threading.Event()

    def load(served: Served, mine: list[bytes]) -> None:
        while not ending.is_set():
            answered.append(ask(served, mine[len(answered) % len(mine)]))

    with server(home) as served:
        callers = [threading.Thread(target=load, args=(served, films[i::2])) for i in range(2)]
        for caller in callers:
            caller.start()
        try:
            while len(answered) < 100:
                assert all(caller.is_alive() for caller in callers)
            before = list(answered)
            said = rounds(home, "backup", file, "--json").json
            after = len(answered)
        finally:
            ending.set()
            for caller in callers:
                caller.join()
    assert said["missing"] == []
    done = rounds(home, "restore", file, "--home", there, "--json").json
    assert len(before) <= done["predictions"] <= after + 2
    with opened(there) as ports:
        rows = ports.captures.since(0, 1_000_000)
        assert set(before) <= {row.prediction for row in rows}
        assert all(digest(ports.blobs.get(row.image)) == row.image for row in rows)
        assert {row.image for row in rows} == set(ports.blobs)
    with server(there) as served:
        assert ask(served, films[0]) not in answered
