"""What every test gets: folders of its own instead of the user's, and no network but loopback."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NETWORKS = "TESTS_NETWORKS"  # where this run keeps the networks it converts
LOOPBACK = {"127.0.0.1", "::1", "localhost"}


@pytest.fixture(scope="session", autouse=True)
def networks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A network is converted once a run, not once a test: each conversion takes up to twenty seconds."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own  # the workers' common folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(NETWORKS, str(shared / "networks"))
        yield


def share_networks(cache: Path) -> Path:
    """`cache`, a folder of its own but for the converted networks, which are those of the run."""
    shared = Path(os.environ[NETWORKS])
    shared.mkdir(exist_ok=True)
    (cache / "openvino").symlink_to(shared)
    return cache


def environment_in(place: Path) -> dict[str, str]:
    """For a process: its caches, settings and log are under `place`; no setting of this one's."""
    own = {f"AGENTMTL_{kind}_DIR": str(place / kind.lower()) for kind in ("CACHE", "DATA", "CONFIG")}
    if not (place / "cache").exists():
        (place / "cache").mkdir()
        share_networks(place / "cache")
    return {**{k: v for k, v in os.environ.items() if not k.startswith("AGENTMTL_")}, **own}


@pytest.fixture(autouse=True)
def folders_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches, settings and the log of a test stay away from the user's."""
    for kind in ("CACHE", "DATA", "CONFIG"):
        monkeypatch.setenv(f"AGENTMTL_{kind}_DIR", str(tmp_path_factory.mktemp(kind.lower())))
    share_networks(Path(os.environ["AGENTMTL_CACHE_DIR"]))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise 1: nothing needs the network. A connection to anything but loopback fails the test."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in LOOPBACK:
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
