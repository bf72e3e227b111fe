"""The typed client of the HTTP API: `Client` waits, `AsyncClient` is awaited, and both say the same."""

from rounds.client.api import AsyncClient, Client
from rounds.client.calls import Answers, Attached, Recalled, Retry
from rounds.client.errors import ApiError, ClientError, Unreachable

__all__ = [
    "Answers",
    "ApiError",
    "AsyncClient",
    "Attached",
    "Client",
    "ClientError",
    "Recalled",
    "Retry",
    "Unreachable",
]
