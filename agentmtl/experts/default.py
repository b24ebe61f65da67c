"""Which embedded heads answer: the reader where its head and trunk are there, else quoted sentences; and the
hops head that reads chains of evidence."""

from __future__ import annotations

from pathlib import Path

from agentmtl.errors import UsageError
from agentmtl.experts.expert import Expert
from agentmtl.experts.reader import ReaderExpert
from agentmtl.experts.sentences import SentenceExpert
from agentmtl.retrieval.hops.judge import HopJudge, load_judge
from agentmtl.trunk.encoder import EncoderIdentity
from agentmtl.trunk.head_network import open_head
from agentmtl.trunk.heads import shipped_head

AUTO, NONE = "auto", "none"


def embedded_expert(name: str, encoder: EncoderIdentity, backend: str = "auto") -> Expert:
    """`name`: "auto", "reader", "sentences", or the folder of a reader's head.

    "auto" is the reader, but quoted sentences for an index made without a model, which stays without one.
    Raises UsageError for another name, EncoderError where a head does not fit its trunk.
    """
    shipped = shipped_head("reader")
    if name == AUTO:
        name = "reader" if shipped and not _without_a_model(encoder) else "sentences"
    if name == "sentences":
        return SentenceExpert()
    folder = shipped if name == "reader" else Path(name)
    if folder is None or not folder.is_dir():
        raise UsageError(
            f"There is no expert {name!r}.", "Choose auto, reader, sentences, or a head's folder."
        )
    return ReaderExpert(open_head(folder, backend))


def embedded_judge(name: str, encoder: EncoderIdentity, backend: str = "auto") -> HopJudge | None:
    """`name`: "auto", "none", or the folder of a hops head.

    "auto" is the one that comes with the package, and none for an index made without a model. Raises
    UsageError for another name, EncoderError where a head does not fit its trunk.
    """
    if name == NONE or (name == AUTO and _without_a_model(encoder)):
        return None
    folder = None if name == AUTO else Path(name)
    if folder is not None and not folder.is_dir():
        raise UsageError(f"There is no hops head {name!r}.", "Choose auto, none, or a head's folder.")
    return load_judge(folder, backend)


def _without_a_model(encoder: EncoderIdentity) -> bool:
    return encoder.name.startswith("hashing")
