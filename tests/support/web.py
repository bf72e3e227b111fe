"""A web server on this machine that answers from the middle of its files, and may break off."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Web:
    """What is served, by path, and how: `breaks` are the bytes after which the next answers end; `asked` holds each
    request's path and Range."""

    files: Mapping[str, bytes]
    breaks: list[int] = field(default_factory=list)
    ranges: bool = True
    refuses: list[int] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""


@contextmanager
def web(files: Mapping[str, bytes]) -> Iterator[Web]:
    """Serve files on a free loopback port until the block ends."""
    state = Web(files)

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, _ = self.path.partition("?")
            wanted = self.headers.get("Range", "")
            state.asked.append((self.path, wanted))
            data = state.files.get(path.lstrip("/"))
            if state.refuses:
                self.send_error(state.refuses.pop(0))
            elif data is None:
                self.send_error(404)
            else:
                self._send(data, int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and state.ranges else 0)

        def _send(self, data: bytes, start: int) -> None:
            if start and start >= len(data):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            end = start + state.breaks.pop(0) if state.breaks else len(data)
            self.wfile.write(data[start:end])
            if end < len(data):
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(2)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
