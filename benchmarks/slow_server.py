"""A chat server on loopback that takes a fixed time a call and cites the first document it is shown.

    python benchmarks/slow_server.py SECONDS        prints its port

One thread, one event loop, no work: what a call takes longer than SECONDS is the client's.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

LOOKS_UP = "Say what to look up next"  # how the prompt for the next query begins


async def serve(seconds: float) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = _length(head)
                body = json.loads(await reader.readexactly(length)) if length else {}
                await asyncio.sleep(seconds)
                data = json.dumps(reply(body)).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
                writer.write(f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def reply(body: dict[str, Any]) -> dict[str, Any]:
    """Enough is known; else the first words of document 1, cited."""
    system, user = body["messages"][0]["content"], body["messages"][-1]["content"]
    said = "enough"
    if not system.startswith(LOOKS_UP):
        said = " ".join(user.partition("[1] ")[2].split()[:6]) + " [1]"
    choices = [
        {"index": n, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        for n in range(int(body.get("n") or 1))
    ]
    usage = {"prompt_tokens": len(user) // 4, "completion_tokens": 8 * len(choices)}
    return {"id": "slow-1", "model": body["model"], "choices": choices, "usage": usage}


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
