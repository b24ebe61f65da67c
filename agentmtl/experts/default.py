"""Which embedded expert answers: the reader where its head and trunk are there, else quoted sentences."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from agentmtl.errors import UsageError
from agentmtl.experts.expert import Expert
from agentmtl.experts.reader import ReaderExpert
from agentmtl.experts.sentences import SentenceExpert
from agentmtl.trunk.cache import default_cache_dir
from agentmtl.trunk.encoder import EncoderIdentity
from agentmtl.trunk.head_network import HeadNetwork
from agentmtl.trunk.heads import load_head, shipped_head
from agentmtl.trunk.loading import model_files
from agentmtl.trunk.transformer import choose_backends

AUTO = "auto"


def embedded_expert(name: str, encoder: EncoderIdentity, backend: str = "auto") -> Expert:
    """`name`: "auto", "reader", "sentences", or the folder of a reader's head.

    "auto" is the reader, but quoted sentences for an index made without a model, which stays without one.
    Raises UsageError for another name, EncoderError where a head does not fit its trunk.
    """
    shipped = shipped_head("reader")
    if name == AUTO:
        name = "reader" if shipped and not encoder.name.startswith("hashing") else "sentences"
    if name == "sentences":
        return SentenceExpert()
    folder = shipped if name == "reader" else Path(name)
    if folder is None or not folder.is_dir():
        raise UsageError(
            f"There is no expert {name!r}.", "Choose auto, reader, sentences, or a head's folder."
        )
    return ReaderExpert(open_head(folder, backend))


def open_head(folder: Path, backend: str = "auto") -> HeadNetwork:
    """A head on the trunk that its card names. Raises EncoderError where that is not there or another."""
    backends = choose_backends(backend, importlib.util.find_spec("openvino") is not None)
    trunk = load_head(folder).card.trunk_name
    return HeadNetwork(folder, model_files(trunk), backends, default_cache_dir())
