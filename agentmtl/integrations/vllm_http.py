"""The wire to a vLLM server: JSON over HTTP, with retries, a circuit breaker and server-sent events.

Retried are only failures that another try can mend: no connection, a connection that broke before an answer,
and statuses of 500 and more. Waits double, with jitter, so that clients do not come back together. After some
failures in a row the circuit opens: calls fail at once until a pause is over, then one may try.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from random import Random
from typing import Any
from weakref import WeakKeyDictionary

import httpx

from agentmtl.errors import ModelError
from agentmtl.integrations.http_slots import SlotTransport

_HINT = "See whether the server runs: curl {url}/models"
_DETAIL = 300  # characters of a server's own message that are shown


class Breaker:
    """Opens after `failures` in a row, for `seconds`."""

    def __init__(
        self, failures: int = 5, seconds: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._pause, self._clock = failures, seconds, clock
        self._failed, self._open_until = 0, 0.0
        self._lock = threading.Lock()

    def admit(self, url: str) -> None:
        """Raises ModelError while the circuit is open."""
        with self._lock:
            if self._failed < self._most:
                return
            left = self._open_until - self._clock()
            if left > 0:
                raise ModelError(
                    f"The server {url} failed {self._failed} times in a row: not asked for {left:.0f} s.",
                    _HINT.format(url=url),
                )
            self._open_until = self._clock() + self._pause  # one call may try

    def note(self, success: bool) -> None:
        with self._lock:
            self._failed = 0 if success else self._failed + 1
            if self._failed >= self._most:
                self._open_until = self._clock() + self._pause


class VllmHttp:
    """Requests to one server. Safe to use from several threads and event loops."""

    def __init__(
        self,
        base_url: str,
        key: str = "",
        *,
        timeout: float = 60.0,
        retries: int = 2,
        breaker: Breaker | None = None,
    ) -> None:
        """`base_url` ends in /v1. `timeout`: seconds that one try may take. `retries`: after the first."""
        self.url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._timeout, self._retries = timeout, retries
        self._breaker = breaker or Breaker()
        self._random = Random()
        self._client: httpx.Client | None = None
        self._async: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"VllmHttp({self.url!r})"

    @property
    def root(self) -> str:
        """Where vLLM's own endpoints are: /tokenize, /health, /v1/load_lora_adapter's parent."""
        return self.url.removesuffix("/v1")

    def post(self, url: str, body: Mapping[str, Any], timeout: float | None = None) -> dict[str, Any]:
        """The answer's object. Raises ModelError where the server refuses, fails or cannot be reached."""
        for attempt in range(self._retries + 1):
            self._breaker.admit(self.url)
            try:
                response = self._opened().post(url, json=body, timeout=timeout or self._timeout)
            except httpx.TransportError as error:
                self._failed(attempt, error)
            else:
                if not self._again(attempt, response.status_code):
                    return self._read(response)
            time.sleep(self._wait(attempt))
        raise AssertionError("the last attempt returns or raises")

    async def apost(self, url: str, body: Mapping[str, Any], timeout: float | None = None) -> dict[str, Any]:
        """`post` without blocking the event loop."""
        for attempt in range(self._retries + 1):
            self._breaker.admit(self.url)
            try:
                response = await self._async_client().post(url, json=body, timeout=timeout or self._timeout)
            except httpx.TransportError as error:
                self._failed(attempt, error)
            else:
                if not self._again(attempt, response.status_code):
                    return self._read(response)
            await asyncio.sleep(self._wait(attempt))
        raise AssertionError("the last attempt returns or raises")

    def events(
        self, url: str, body: Mapping[str, Any], timeout: float | None = None
    ) -> Iterator[dict[str, Any]]:
        """The objects of a stream as they come. A stream that has begun is not tried again."""
        self._breaker.admit(self.url)
        try:
            with self._opened().stream("POST", url, json=body, timeout=timeout or self._timeout) as response:
                if response.status_code != httpx.codes.OK:
                    response.read()
                    self._read(response)
                yield from filter(None, map(_event, response.iter_lines()))
        except httpx.TransportError as error:
            self._failed(self._retries, error)
        self._breaker.note(True)

    async def aevents(
        self, url: str, body: Mapping[str, Any], timeout: float | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """`events` without blocking the event loop."""
        self._breaker.admit(self.url)
        try:
            wait, client = timeout or self._timeout, self._async_client()
            async with client.stream("POST", url, json=body, timeout=wait) as response:
                if response.status_code != httpx.codes.OK:
                    await response.aread()
                    self._read(response)
                async for line in response.aiter_lines():
                    event = _event(line)
                    if event is not None:
                        yield event
        except httpx.TransportError as error:
            self._failed(self._retries, error)
        self._breaker.note(True)

    def get(self, url: str, timeout: float | None = None) -> dict[str, Any]:
        """An object that the server gives of itself; tried once."""
        try:
            response = self._opened().get(url, timeout=timeout or self._timeout)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        return self._read(response)

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _opened(self) -> httpx.Client:
        with self._lock:
            if self._client is None:
                self._client = httpx.Client(headers=self._headers, trust_env=False)
            return self._client

    def _async_client(self) -> httpx.AsyncClient:
        """That of the running event loop, to which a client belongs."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if loop not in self._async:
                self._async[loop] = httpx.AsyncClient(
                    headers=self._headers, trust_env=False, transport=SlotTransport()
                )
            return self._async[loop]

    def _failed(self, attempt: int, error: httpx.TransportError) -> None:
        self._breaker.note(False)
        if attempt >= self._retries or isinstance(error, httpx.ReadTimeout):
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx.TransportError) -> ModelError:
        late = isinstance(error, httpx.TimeoutException)
        what = "did not answer in time" if late else f"cannot be reached ({type(error).__name__})"
        return ModelError(f"The server {self.url} {what}.", _HINT.format(url=self.url))

    def _again(self, attempt: int, status: int) -> bool:
        """Whether to try once more after this status."""
        self._breaker.note(status < 500)
        return status >= 500 and attempt < self._retries

    def _wait(self, attempt: int) -> float:
        """Seconds before the next attempt."""
        return 0.1 * 2.0**attempt * (0.5 + self._random.random())

    def _read(self, response: httpx.Response) -> dict[str, Any]:
        try:
            found = response.json()
        except ValueError:
            found = {}
        if response.status_code != httpx.codes.OK or not isinstance(found, dict):
            raise ModelError(
                f"The server {self.url} answered {response.status_code}: {_detail(found)}",
                _HINT.format(url=self.url),
            )
        return found


def _event(line: str) -> dict[str, Any] | None:
    """The object of a line of a stream; None for lines that hold none."""
    data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
    if not data or data == "[DONE]":
        return None
    try:
        found = json.loads(data)
    except ValueError as error:
        raise ModelError("The server sent a stream that is no JSON.", "See the server's log.") from error
    if "error" in found:
        raise ModelError(f"The server broke off: {_detail(found)}", "See the server's log.")
    return dict(found)


def _detail(found: Any) -> str:
    error = found.get("error", found) if isinstance(found, dict) else {}
    message = error.get("message", "") if isinstance(error, dict) else error
    return " ".join(str(message or "no message").split())[:_DETAIL]
