"""The two clients: one source of calls, driven by waiting or by awaiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from functools import wraps
from types import TracebackType
from typing import Concatenate, Generic, ParamSpec, TypeVar

import httpx

from rounds.client import calls
from rounds.client.calls import Ask, Call, Heard, Retry, Wait, carried_out

P = ParamSpec("P")
T = TypeVar("T")
TIMEOUT_S = 30.0


def _waiting(make: Callable[P, Call[T]]) -> Callable[Concatenate[Client, P], T]:
    @wraps(make)
    def method(self: Client, /, *args: P.args, **given: P.kwargs) -> T:
        return self.run(make(*args, **given))

    return method


def _awaited(make: Callable[P, Call[T]]) -> Callable[Concatenate[AsyncClient, P], Awaitable[T]]:
    @wraps(make)
    def method(self: AsyncClient, /, *args: P.args, **given: P.kwargs) -> Awaitable[T]:
        return self.run(make(*args, **given))

    return method


class Client:
    """Calls the API and waits for it. Every call raises ApiError where the server says no, and Unreachable where there
    is no answer; what the server asks to send again is sent again, as `retry` says.

    `key` is one of `rounds keys add`; `timeout` in seconds holds for each try.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        retry: Retry = Retry(),  # noqa: B008 (frozen)
        timeout: float = TIMEOUT_S,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._retry = retry
        self._http = httpx.Client(base_url=url, headers=_headers(key), timeout=timeout, transport=transport)

    predict = _waiting(calls.predict)
    predict_batch = _waiting(calls.predict_batch)
    recall = _waiting(calls.recall)
    explain = _waiting(calls.explain)
    label = _waiting(calls.label)
    promote = _waiting(calls.promote)
    roll_back = _waiting(calls.roll_back)
    models = _waiting(calls.models)
    findings = _waiting(calls.findings)
    ready = _waiting(calls.ready)

    def run(self, call: Call[T]) -> T:
        """Carry out a call."""
        steps = carried_out(call, self._retry)
        heard: Heard | None = None
        while True:
            step = _next(steps, heard)
            if isinstance(step, _Done):
                return step.value
            heard = None
            if isinstance(step, Wait):
                time.sleep(step.seconds)
            else:
                try:
                    heard = _heard(self._http.send(_request(self._http, step)))
                except httpx.TransportError as error:
                    heard = Heard(0, failure=error)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


class AsyncClient:
    """The same calls, to be awaited; see `Client`."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        retry: Retry = Retry(),  # noqa: B008 (frozen)
        timeout: float = TIMEOUT_S,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._retry = retry
        self._http = httpx.AsyncClient(base_url=url, headers=_headers(key), timeout=timeout, transport=transport)

    predict = _awaited(calls.predict)
    predict_batch = _awaited(calls.predict_batch)
    recall = _awaited(calls.recall)
    explain = _awaited(calls.explain)
    label = _awaited(calls.label)
    promote = _awaited(calls.promote)
    roll_back = _awaited(calls.roll_back)
    models = _awaited(calls.models)
    findings = _awaited(calls.findings)
    ready = _awaited(calls.ready)

    async def run(self, call: Call[T]) -> T:
        """Carry out a call."""
        steps = carried_out(call, self._retry)
        heard: Heard | None = None
        while True:
            step = _next(steps, heard)
            if isinstance(step, _Done):
                return step.value
            heard = None
            if isinstance(step, Wait):
                await asyncio.sleep(step.seconds)
            else:
                try:
                    heard = _heard(await self._http.send(_request(self._http, step)))
                except httpx.TransportError as error:
                    heard = Heard(0, failure=error)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self.close()


@dataclass(frozen=True)
class _Done(Generic[T]):
    """The end of a call."""

    value: T


def _next(steps: Generator[Ask | Wait, Heard | None, T], heard: Heard | None) -> Ask | Wait | _Done[T]:
    try:
        return steps.send(heard)
    except StopIteration as end:
        return _Done(end.value)


def _request(http: httpx.Client | httpx.AsyncClient, ask: Ask) -> httpx.Request:
    params = dict(ask.params) or None
    return http.build_request(ask.method, ask.path, params=params, headers=dict(ask.headers), content=ask.content)


def _heard(answer: httpx.Response) -> Heard:
    return Heard(answer.status_code, {key.lower(): value for key, value in answer.headers.items()}, answer.content)


def _headers(key: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}
