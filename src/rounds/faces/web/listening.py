"""A socket that is ours before anything is loaded."""

from __future__ import annotations

import errno
import socket

from rounds.core.errors import Fault, PortInUse, WorldFault

BACKLOG = 2048


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
