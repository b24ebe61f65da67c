"""A transport for many requests at once: a connection of its own for each that is under way.

httpx keeps all connections in one pool and looks at every one of them, its socket included, whenever a
request begins or ends, so that the work of n requests at once grows with n². Here each slot is a pool of
one, the one used last is taken first, and slots beyond `kept` are closed when they are free.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator

import httpx

KEPT = 64  # free connections


class SlotTransport(httpx.AsyncBaseTransport):
    """For one event loop. The server's certificate is checked, as httpx does."""

    def __init__(self, kept: int = KEPT) -> None:
        self._free: list[httpx.AsyncHTTPTransport] = []
        self._kept = kept
        self._context: ssl.SSLContext | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        slot = self._free.pop() if self._free else self._made(request.url.scheme == "https")
        try:
            response = await slot.handle_async_request(request)
        except BaseException:
            await slot.aclose()  # what state its connection is in, nobody knows
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Returning(response.stream, self, slot)
        return response

    async def aclose(self) -> None:
        """Close the free connections."""
        while self._free:
            await self._free.pop().aclose()

    async def put_back(self, slot: httpx.AsyncHTTPTransport) -> None:
        """Called when a response has been read, or given up."""
        if len(self._free) < self._kept:
            self._free.append(slot)
        else:
            await slot.aclose()

    def _made(self, secure: bool) -> httpx.AsyncHTTPTransport:
        if secure and self._context is None:
            self._context = httpx.create_ssl_context(trust_env=False)
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1)
        # Loading certificates takes longer than a request, so that plain HTTP goes without.
        return httpx.AsyncHTTPTransport(verify=self._context or False, limits=limits, trust_env=False)


class _Returning(httpx.AsyncByteStream):
    """A response's stream that gives its slot back at the end."""

    def __init__(
        self, stream: httpx.AsyncByteStream, owner: SlotTransport, slot: httpx.AsyncHTTPTransport
    ) -> None:
        self._stream, self._owner, self._slot = stream, owner, slot

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()
        await self._owner.put_back(self._slot)
