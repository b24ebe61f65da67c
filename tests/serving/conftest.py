"""Fixtures of the tests against a real vLLM: the servers, a model over them, an index.

Without the package every test here is skipped, and the reason says what to run. When a test fails, the end of
the server's log is part of its report.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentmtl import Document, Index
from agentmtl.integrations.chat_vllm import ChatVLLM

from .server import ABSENT, MODEL, PYTHON, Server

NOTES = [
    ("The lighthouse of Tarn was built by Mira Holm in 1871.", "Tarn lighthouse"),
    ("Mira Holm was born in Foulby, a village by the river Lune.", "Mira Holm"),
    ("The bridge of Stadby was opened in 1902 by the engineer Jonas Berg.", "Stadby bridge"),
    ("The harbour of Molde has four piers and a school of navigation.", "Molde harbour"),
]


@pytest.fixture(scope="session")
def vllm() -> Path:
    """The interpreter that has vLLM."""
    if not PYTHON.exists():
        pytest.skip(ABSENT)
    return PYTHON


@pytest.fixture(scope="session")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Four short documents, with the token stream of the tiny model."""
    index = Index.create(tmp_path_factory.mktemp("notes") / "ix", encoder="hashing", streams=())
    index.add(Document(f"n{at}", text, title) for at, (text, title) in enumerate(NOTES))
    index.add_stream(str(MODEL))
    return index


@pytest.fixture(scope="session")
def server(vllm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server that is always there, with the adapter `tickets`."""
    yield from _running(Server(tmp_path_factory.mktemp("server"), adapters=True))


@pytest.fixture(scope="session")
def spare(vllm: Path, tmp_path_factory: pytest.TempPathFactory, notes: Index) -> Iterator[Server]:
    """One without adapters and with the identifiers' logits processor. Who kills it starts it again."""
    name = "agentmtl.integrations.vllm_identifiers:IdentifierLogitsProcessor"
    folder = tmp_path_factory.mktemp("spare")
    flags = ("--logits-processors", name)
    yield from _running(Server(folder, arguments=flags, AGENTMTL_IDENTIFIERS_INDEX=str(notes.folder)))


def _running(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def chat(server: Server) -> ChatVLLM:
    """Greedy, with a limit on outputs."""
    return greedy(server)


@pytest.fixture
def spare_chat(spare: Server) -> ChatVLLM:
    """The same, of the spare server."""
    return greedy(spare)


def greedy(server: Server) -> ChatVLLM:
    return ChatVLLM(model="tiny", base_url=f"{server.url}/v1", temperature=0, max_tokens=24, timeout=120)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    for name, given in getattr(item, "funcargs", {}).items():
        if call.when == "call" and report.failed and isinstance(given, Server):
            report.sections.append((f"log of {name}", given.tail()))
    return report
