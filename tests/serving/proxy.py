"""A loopback proxy that makes a good server misbehave: late, dripping, failing, saying other things."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx


@dataclass
class Misbehaving:
    """`late`: seconds before a reply; `drip`: seconds between its bytes; `statuses` come first; `said`: what
    every output says instead; `raw`: a reply of its own."""

    target: str
    late: float = 0.0
    drip: float = 0.0
    statuses: list[int] = field(default_factory=list)
    said: Callable[[str], str] | None = None
    raw: bytes | None = None
    paths: list[str] = field(default_factory=list)
    url: str = ""

    @property
    def asked(self) -> int:
        """Chat completions that were asked for."""
        return sum(path.endswith("/chat/completions") for path in self.paths)


@contextmanager
def misbehaving(target: str, **how: Any) -> Iterator[Misbehaving]:
    """A proxy in front of `target` while the block runs."""
    proxy = Misbehaving(target, **how)

    class Handler(_Handler):
        proxy_of = proxy

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    proxy_of: Misbehaving
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Nothing on stderr."""

    def do_GET(self) -> None:
        self._forward("GET", b"")

    def do_POST(self) -> None:
        self._forward("POST", self.rfile.read(int(self.headers["Content-Length"])))

    def _forward(self, method: str, body: bytes) -> None:
        proxy = self.proxy_of
        proxy.paths.append(self.path)
        if proxy.statuses:
            self._send(proxy.statuses.pop(0), b'{"error": {"message": "made to fail"}}')
            return
        time.sleep(proxy.late)
        with httpx.Client(trust_env=False, timeout=120) as client:
            headers = {"Content-Type": "application/json"}
            reply = client.request(method, proxy.target + self.path, content=body, headers=headers)
        chat = self.path.endswith("/chat/completions")
        self._send(reply.status_code, self._twisted(reply.content) if chat else reply.content)

    def _twisted(self, data: bytes) -> bytes:
        if self.proxy_of.raw is not None:
            return self.proxy_of.raw
        if self.proxy_of.said is None:
            return data
        found = json.loads(data)
        for choice in found.get("choices", []):
            choice["message"]["content"] = self.proxy_of.said(choice["message"]["content"])
        return json.dumps(found).encode()

    def _send(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        try:
            if self.proxy_of.drip:
                for at in range(len(data)):
                    self.wfile.write(data[at : at + 1])
                    time.sleep(self.proxy_of.drip)
            else:
                self.wfile.write(data)
        except OSError:  # who asked has gone
            self.close_connection = True
