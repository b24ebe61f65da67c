"""A server on loopback that answers as vLLM does, from a function: real sockets, no model."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
MODELS = [
    {"id": "tiny", "parent": None, "max_model_len": 512},
    {"id": "adapter", "parent": "tiny", "max_model_len": None},
]


@dataclass
class Scripted:
    """What it does: `say` makes a request's outputs, `calls` the tools that it calls instead; `statuses` come
    first, 0 breaks the connection off. `refuses` requests with 400; `drip`: seconds between the bytes of a
    reply."""

    say: Callable[[Body], list[str]] = lambda body: ["Oslo [1]"] * int(body.get("n", 1))
    statuses: list[int] = field(default_factory=list)
    seconds: float = 0.0
    usage: bool = True
    calls: Callable[[Body], list[Body]] = lambda body: []
    tool: Body | None = None
    reasoning: str = ""
    raw: str | None = None
    refuses: Callable[[Body], bool] | None = None
    tokenizes: bool = True
    drip: float = 0.0
    most: int = 0  # requests that were under way at the same time
    now: int = 0
    requests: list[tuple[str, Body, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    @property
    def bodies(self) -> list[Body]:
        return [body for path, body, _ in self.requests if path.endswith("/chat/completions")]


@contextmanager
def serving(script: Scripted | None = None) -> Iterator[Scripted]:
    """A server on a free port of loopback while the block runs."""
    told = script or Scripted()

    class Handler(_Handler):
        script = told

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    script: Scripted
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Nothing on stderr."""

    def do_GET(self) -> None:
        self.script.requests.append((self.path, {}, dict(self.headers)))
        self._answer(200, {"data": MODELS})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        script = self.script
        script.requests.append((self.path, body, dict(self.headers)))
        status = script.statuses.pop(0) if script.statuses else 200
        script.now += 1
        script.most = max(script.most, script.now)
        time.sleep(script.seconds)
        script.now -= 1
        if status == 0:
            self.close_connection = True
            self.connection.shutdown(2)
        elif status != 200 or (script.refuses and script.refuses(body)):
            refused = {"error": {"message": "made to fail", "type": "test"}}
            self._answer(status if status != 200 else 400, refused)
        elif self.path == "/tokenize" and not script.tokenizes:
            self._answer(404, {"detail": "Not Found"})
        elif script.raw is not None:
            self._send(200, script.raw.encode(), "application/json")
        elif self.path == "/tokenize":
            self._answer(200, {"count": sum(len(_text(m).split()) for m in body["messages"])})
        elif body.get("stream"):
            self._stream(body)
        else:
            self._answer(200, self._reply(body))

    def _reply(self, body: Body) -> Body:
        outputs = self.script.say(body)
        return {
            "id": "chatcmpl-1", "model": body["model"],
            "choices": [
                {"index": n, "finish_reason": "stop", "message": self._message(text, body),
                 "logprobs": _logprobs(text) if body.get("logprobs") else None}
                for n, text in enumerate(outputs)
            ],
            **({"usage": _usage(body, outputs)} if self.script.usage else {}),
        }  # fmt: skip

    def _message(self, text: str, body: Body) -> Body:
        message: Body = {"role": "assistant", "content": text}
        if self.script.reasoning:
            message["reasoning_content"] = self.script.reasoning
        if called := self._called(body):
            message |= {"content": None, "tool_calls": called}
        return message

    def _called(self, body: Body) -> list[Body]:
        functions = [self.script.tool] if self.script.tool else self.script.calls(body)
        return [{"id": f"call-{n}", "type": "function", "function": f} for n, f in enumerate(functions, 1)]

    def _stream(self, body: Body) -> None:
        text = self.script.say(body)[0]
        head = {"id": "chatcmpl-1", "model": body["model"]}
        deltas: list[Body] = [
            {"content": piece}
            for piece in text.split(" ", 1)[:1] + [" " + rest for rest in text.split(" ")[1:]]
        ]
        if called := self._called(body):
            deltas = [{"tool_calls": [{**one, "index": n}]} for n, one in enumerate(called)]
        events: list[Body] = [
            {
                **head,
                "choices": [
                    {
                        "index": 0,
                        "delta": delta,
                        "finish_reason": None,
                        "logprobs": _logprobs(delta.get("content", "")) if body.get("logprobs") else None,
                    }
                ],
            }
            for delta in deltas
        ]
        events.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        if body.get("stream_options", {}).get("include_usage"):
            events.append({**head, "choices": [], "usage": _usage(body, [text])})
        data = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
        self._send(200, data.encode(), "text/event-stream")

    def _answer(self, status: int, found: Body) -> None:
        self._send(status, json.dumps(found).encode(), "application/json")

    def _send(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if not self.script.drip:
            self.wfile.write(data)
            return
        for at in range(len(data)):
            self.wfile.write(data[at : at + 1])
            time.sleep(self.script.drip)


def _text(message: Body) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


def _usage(body: Body, outputs: list[str]) -> Body:
    prompt = sum(len(_text(message).split()) for message in body["messages"])
    output = sum(len(text.split()) for text in outputs)
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


def _logprobs(text: str) -> Body:
    return {"content": [{"token": word, "logprob": -0.1, "top_logprobs": []} for word in text.split()]}
