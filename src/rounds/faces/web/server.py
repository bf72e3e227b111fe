"""The API in a process of its own."""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import uvicorn
from fastapi import FastAPI
from structlog.typing import Processor

from rounds.core.ports import Opener
from rounds.core.specs import MonitorSpec, ServeSpec
from rounds.faces.web.app import create_app
from rounds.faces.web.listening import BACKLOG, listen
from rounds.faces.web.protocol import Limits, protocol
from rounds.faces.web.serving import Observe
from rounds.loop.live import Live
from rounds.loop.workers import start
from rounds.serve.pool import Begin

GRACE_S = 5
FILES, OWN_FILES = 8192, 256


def run(
    open_ports: Opener,
    serve: ServeSpec,
    monitor: MonitorSpec,
    observe: Observe | None = None,
    *,
    sock: socket.socket | None = None,
    begin: Begin = start,
) -> None:
    """Serve until SIGTERM or SIGINT, then answer what has been asked and return; `sock` may listen already, `begin`
    starts a worker process.

    Raises:
        PortInUse: somebody else listens there.
        WorldFault: the address cannot be listened on, or what `open_ports` raises.
    """
    with sock or listen(serve.host, serve.port) as listening:
        _log_as_json()
        app = create_app(open_ports, serve, monitor, observe, begin)
        limits = Limits(_connections())
        server = _Server(_config(app, limits))
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(_serve(app, server, listening, limits))


async def _serve(app: FastAPI, server: uvicorn.Server, sock: socket.socket, limits: Limits) -> None:
    host, port = sock.getsockname()[:2]
    url = f"http://[{host}]:{port}" if sock.family == socket.AF_INET6 else f"http://{host}:{port}"
    async with app.router.lifespan_context(app):
        # What is loaded by now lives as long as the process: scanning it over and over would stop every answer.
        gc.collect()
        gc.freeze()
        gc.enable()
        beside = [asyncio.create_task(_announce(app.state.serving.live, url)), asyncio.create_task(limits.watch())]
        await server.serve(sockets=[sock])
        for task in beside:
            task.cancel()


async def _announce(live: Live, url: str) -> None:
    """Say once that films are answered; before that, if so, why not yet."""
    if not live.ready:
        say(f"listening on {url}, not ready: {live.vacancy()}")
    while not live.ready:
        await asyncio.sleep(0.05)
    say(f"ready on {url}")


def say(text: str) -> None:
    """Tell whoever started the server."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _connections() -> int:
    """How many may be open: what the system allows, less what the server itself needs."""
    least, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(most, FILES) if most != resource.RLIM_INFINITY else FILES
    if least < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    return max(16, max(least, wanted) - OWN_FILES)


def _config(app: FastAPI, limits: Limits) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=protocol(lambda: getattr(app.state, "serving", None), limits),
        ws="none",
        # The lifespan is ours to run: uvicorn would bury an error of ours in a traceback of its own.
        lifespan="off",
        proxy_headers=False,
        access_log=False,
        log_config=None,
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
    processors = structlog.processors
    about: list[Processor] = [processors.add_log_level, processors.TimeStamper(fmt="iso", utc=True)]
    # Without the values of variables: among them are keys, and whose film it is.
    traces = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    line: list[Processor] = [processors.ExceptionRenderer(traces), processors.JSONRenderer(ensure_ascii=False)]
    # What libraries log (a request that is no HTTP) in the same words.
    theirs = logging.StreamHandler(sys.stderr)
    drop = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    theirs.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=about, processors=[drop, *line]))
    logging.basicConfig(handlers=[theirs], level=logging.WARNING)
    structlog.configure(
        processors=[*about, *line],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
