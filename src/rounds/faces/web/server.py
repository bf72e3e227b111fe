"""The API in a process of its own, on a socket that is ours before anything is loaded."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import uvicorn
from fastapi import FastAPI

from rounds.core.errors import Fault, PortInUse, WorldFault
from rounds.core.ports import Opener
from rounds.core.specs import MonitorSpec, ServeSpec
from rounds.faces.web.app import create_app
from rounds.faces.web.serving import Observe
from rounds.loop.live import Live

BACKLOG = 2048
GRACE_S = 5


def run(open_ports: Opener, serve: ServeSpec, monitor: MonitorSpec, observe: Observe | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then answer what has been asked and return.

    Raises:
        PortInUse: somebody else listens there.
        WorldFault: the address cannot be listened on, or what `open_ports` raises.
    """
    with listen(serve.host, serve.port) as sock:
        _log_as_json()
        app = create_app(open_ports, serve, monitor, observe)
        server = _Server(_config(app))
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(_serve(app, server, sock))


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there already; port 0 takes a free one. Raises PortInUse, or WorldFault for another cause.

    Bound and listening before anything is loaded: a port in use is known at once, and early clients wait instead of
    being turned away.
    """
    where = f"{host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _not_listening(where, error) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            other = f"choose another port (--port {port + 1}), or stop what listens there (ss -ltnp 'sport = :{port}')"
            fault = Fault("somebody else listens there", where, "a free port", "a port in use", other)
            raise PortInUse(f"port {port} is in use", [fault]) from error
        raise _not_listening(where, error) from error
    return sock


def _not_listening(where: str, error: OSError) -> WorldFault:
    fault = Fault(
        "cannot listen there", where, "an address of this machine", str(error), "choose another --host or --port"
    )
    return WorldFault(f"cannot listen on {where}", [fault])


async def _serve(app: FastAPI, server: uvicorn.Server, sock: socket.socket) -> None:
    host, port = sock.getsockname()[:2]
    url = f"http://[{host}]:{port}" if sock.family == socket.AF_INET6 else f"http://{host}:{port}"
    async with app.router.lifespan_context(app):
        # What is loaded by now lives as long as the process: scanning it over and over would stop every answer.
        gc.collect()
        gc.freeze()
        announcing = asyncio.create_task(_announce(app.state.serving.live, url))
        await server.serve(sockets=[sock])
        announcing.cancel()


async def _announce(live: Live, url: str) -> None:
    """Say once that films are answered; before that, if so, why not yet."""
    if live.seated is None:
        _say(f"listening on {url}, not ready: {live.vacancy()}")
    while live.seated is None:
        await asyncio.sleep(0.05)
    _say(f"ready on {url}")


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _config(app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        # The lifespan is ours to run: uvicorn would bury an error of ours in a traceback of its own.
        lifespan="off",
        proxy_headers=False,
        access_log=False,
        log_level="warning",
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=GRACE_S,
    )


class _Server(uvicorn.Server):
    """Ends by returning: uvicorn's own raises the signal again, and the process would look killed."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _log_as_json() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
