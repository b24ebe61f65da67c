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
from dataclasses import dataclass
from random import Random
from typing import Any
from weakref import WeakKeyDictionary

import httpx

from agentmtl.errors import ModelError, UsageError
from agentmtl.integrations.http_slots import SlotTransport

_HINT = "See whether the server runs: curl {url}/models"
_URL_HINT = "Write for example http://127.0.0.1:8000"
_LOG_HINT = "See the server's log."
_HINTS = {
    401: "Set VLLM_API_KEY.",
    403: "Set VLLM_API_KEY.",
    404: "See what the server has: curl {url}/models",
    429: "Ask less at a time, or wait.",
}
_REFUSED_HINT = "Change what is asked: the server refuses it."
_ABSENT = frozenset({404, 405, 501})  # statuses of an endpoint that a server does not have
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


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server sent."""

    status: int
    data: bytes

    @property
    def body(self) -> Any:
        """The JSON value; None where it is none."""
        try:
            return json.loads(self.data)
        except ValueError:
            return None


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
        """`base_url` ends in /v1. `timeout`: seconds that one try may take. `retries`: after the first.

        Raises UsageError for what is no address, or has a password in it, which messages would show.
        """
        _check(base_url)
        self.url = base_url.rstrip("/")
        self._headers = {"Content-Type": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
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
        """Where vLLM's own endpoints are: /tokenize, /health."""
        return self.url.removesuffix("/v1")

    def post(self, url: str, body: Mapping[str, Any], timeout: float | None = None) -> dict[str, Any]:
        """The answer's object. Raises ModelError where the server refuses, fails or cannot be reached."""
        return self._read(self._reply(url, body, timeout))

    async def apost(self, url: str, body: Mapping[str, Any], timeout: float | None = None) -> dict[str, Any]:
        """`post` without blocking the event loop."""
        return self._read(await self._areply(url, body, timeout))

    def post_if_there(self, url: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """`post`; None where the server has no such endpoint."""
        return self._read_if_there(self._reply(url, body))

    async def apost_if_there(self, url: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """`post_if_there` without blocking the event loop."""
        return self._read_if_there(await self._areply(url, body))

    def once(self, method: str, url: str, body: Any = None, timeout: float | None = None) -> Any:
        """The JSON value of an answer, None where it is text; for what is asked of the server itself: tried
        once, and not counted by the circuit breaker."""
        try:
            response = self._opened().request(
                method,
                url,
                content=None if body is None else _encoded(body),
                timeout=timeout or self._timeout,
            )
        except httpx.RequestError as error:
            raise self._unreachable(error) from error
        reply = Reply(response.status_code, response.content)
        if not response.is_success:
            raise self._refused(reply)
        return reply.body

    def events(
        self, url: str, body: Mapping[str, Any], timeout: float | None = None
    ) -> Iterator[dict[str, Any]]:
        """The objects of a stream as they come, each within `timeout`. A stream that has begun is not tried
        again."""
        content, wait = _encoded(body), timeout or self._timeout
        for attempt in range(self._retries + 1):
            self._breaker.admit(self.url)
            last = self._retries
            try:
                with self._opened().stream("POST", url, content=content, timeout=wait) as response:
                    if not self._again(attempt, response.status_code):
                        if response.status_code != httpx.codes.OK:
                            raise self._refused(Reply(response.status_code, response.read()))
                        attempt = last  # from here on there is no other try
                        yield from filter(None, map(_event, response.iter_lines()))
                        return
            except httpx.RequestError as error:
                self._failed(attempt, error)
            time.sleep(self._wait(attempt))

    async def aevents(
        self, url: str, body: Mapping[str, Any], timeout: float | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """`events` without blocking the event loop."""
        content, wait = _encoded(body), timeout or self._timeout
        for attempt in range(self._retries + 1):
            self._breaker.admit(self.url)
            last, client = self._retries, self._async_client()
            try:
                async with client.stream("POST", url, content=content, timeout=wait) as response:
                    if not self._again(attempt, response.status_code):
                        if response.status_code != httpx.codes.OK:
                            raise self._refused(Reply(response.status_code, await response.aread()))
                        attempt = last
                        async for line in response.aiter_lines():
                            event = _event(line)
                            if event is not None:
                                yield event
                        return
            except httpx.RequestError as error:
                self._failed(attempt, error)
            await asyncio.sleep(self._wait(attempt))

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _reply(self, url: str, body: Mapping[str, Any], timeout: float | None = None) -> Reply:
        content, wait = _encoded(body), timeout or self._timeout
        for attempt in range(self._retries + 1):
            self._breaker.admit(self.url)
            try:
                reply = self._try(url, content, wait)
            except httpx.RequestError as error:
                self._failed(attempt, error)
            else:
                if not self._again(attempt, reply.status):
                    return reply
            time.sleep(self._wait(attempt))
        raise AssertionError("the last attempt returns or raises")

    async def _areply(self, url: str, body: Mapping[str, Any], timeout: float | None = None) -> Reply:
        content, wait = _encoded(body), timeout or self._timeout
        for attempt in range(self._retries + 1):
            self._breaker.admit(self.url)
            try:
                reply = await self._atry(url, content, wait)
            except httpx.RequestError as error:
                self._failed(attempt, error)
            else:
                if not self._again(attempt, reply.status):
                    return reply
            await asyncio.sleep(self._wait(attempt))
        raise AssertionError("the last attempt returns or raises")

    def _try(self, url: str, content: bytes, seconds: float) -> Reply:
        """One try. httpx's own timeout is for each read, so a server that drips is stopped here."""
        until = time.monotonic() + seconds
        with self._opened().stream("POST", url, content=content, timeout=seconds) as response:
            pieces = []
            for piece in response.iter_bytes():
                pieces.append(piece)
                if time.monotonic() > until:
                    raise httpx.ReadTimeout("the whole took too long")
            return Reply(response.status_code, b"".join(pieces))

    async def _atry(self, url: str, content: bytes, seconds: float) -> Reply:
        try:
            async with asyncio.timeout(seconds):
                response = await self._async_client().post(url, content=content, timeout=seconds)
        except TimeoutError as error:
            raise httpx.ReadTimeout("the whole took too long") from error
        return Reply(response.status_code, response.content)

    def _opened(self) -> httpx.Client:
        with self._lock:
            if self._client is None:
                self._client = httpx.Client(headers=self._headers, trust_env=False, limits=_LIMITS)
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

    def _failed(self, attempt: int, error: httpx.RequestError) -> None:
        """Raises ModelError where there is no other try."""
        self._breaker.note(False)
        if attempt >= self._retries or isinstance(error, httpx.ReadTimeout):
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx.RequestError) -> ModelError:
        if isinstance(error, httpx.TimeoutException):
            what = "did not answer in time"
        elif isinstance(error, httpx.ConnectError):
            what = f"cannot be reached ({type(error).__name__})"
        else:
            what = f"broke the connection off ({type(error).__name__})"
        return ModelError(f"The server {self.url} {what}.", _HINT.format(url=self.url))

    def _again(self, attempt: int, status: int) -> bool:
        """Whether to try once more after this status."""
        self._breaker.note(status < 500)
        return status >= 500 and attempt < self._retries

    def _wait(self, attempt: int) -> float:
        """Seconds before the next attempt."""
        return 0.1 * 2.0**attempt * (0.5 + self._random.random())

    def _read(self, reply: Reply) -> dict[str, Any]:
        found = reply.body
        if reply.status != httpx.codes.OK:
            raise self._refused(reply)
        if not isinstance(found, dict):
            raise ModelError(f"The server {self.url} sent no JSON object.", _LOG_HINT)
        return found

    def _read_if_there(self, reply: Reply) -> dict[str, Any] | None:
        """A 404 may also mean that the server does not know the model: that is no missing endpoint."""
        if reply.status in _ABSENT and _parameter(reply.body) != "model":
            return None
        return self._read(reply)

    def _refused(self, reply: Reply) -> ModelError:
        """An answer that is no success, in the server's own words."""
        known = _HINTS.get(reply.status, _LOG_HINT if reply.status >= 500 else _REFUSED_HINT)
        return ModelError(
            f"The server {self.url} answered {reply.status}: {_detail(reply.body)}",
            known.format(url=self.url),
        )


_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=64)


def _check(url: str) -> None:
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise UsageError("The server's address is none.", _URL_HINT) from error
    if parts.userinfo:
        raise UsageError("The server's address holds a name or a password.", "Set VLLM_API_KEY instead.")
    if parts.scheme not in ("http", "https") or not parts.host:
        raise UsageError(f"{url} is no address of a server.", _URL_HINT)


def _encoded(body: Any) -> bytes:
    """As JSON; halves of surrogate pairs, which are no text, become question marks."""
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def _event(line: str) -> dict[str, Any] | None:
    """The object of a line of a stream; None for lines that hold none."""
    data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
    if not data or data == "[DONE]":
        return None
    try:
        found = json.loads(data)
    except ValueError as error:
        raise ModelError("The server sent a stream that is no JSON.", _LOG_HINT) from error
    if not isinstance(found, dict):
        raise ModelError("The server sent a stream that holds no objects.", _LOG_HINT)
    if "error" in found:
        raise ModelError(f"The server broke off: {_detail(found)}", _LOG_HINT)
    return found


def _parameter(body: Any) -> str:
    """What a refusal is about, in vLLM's form; "" where it does not say."""
    error = body.get("error") if isinstance(body, dict) else None
    return str(error.get("param") or "") if isinstance(error, dict) else ""


def _detail(body: Any) -> str:
    found = body.get("error", body) if isinstance(body, dict) else body
    message = (found.get("message") or found.get("detail")) if isinstance(found, dict) else found
    return " ".join(str(message or "no message").split())[:_DETAIL]
