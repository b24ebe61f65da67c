"""Topic segmentation against known boundaries: `agentmtl eval segmentation`.

Documents are {id, group, sentences, boundaries}; k of P_k is half the mean length of a document's own
segments. TextTiling (Hearst, 1997) is NLTK's with its defaults, each sentence given as a paragraph, since it
puts boundaries between paragraphs only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agentmtl.errors import UsageError
from agentmtl.evaluate.bootstrap import Statistic, mean_of
from agentmtl.evaluate.datasets import sample
from agentmtl.evaluate.jsonl import files_hash, read_records
from agentmtl.evaluate.report import Report, figures
from agentmtl.evaluate.segmentation_metrics import half_segment, pk, windowdiff
from agentmtl.ingest.segmenter import Segmenter
from agentmtl.ingest.topics import LIKENESS, TopicSegmenter, segmenter_for
from agentmtl.retrieval.identifiers.keys import STOP_WORDS
from agentmtl.retrieval.index import EncoderSpec
from agentmtl.trunk import load_encoder
from agentmtl.trunk.encoder import Encoder, Vectors

BENCHMARK = "segmentation"
DOCUMENTS = "documents.jsonl"
OURS, BASELINE = "topics", "texttiling"  # and LIKENESS: by how alike sentences are, no vectors learned

Cut = Callable[["Segmented"], list[int]]


@dataclass(frozen=True, slots=True)
class Segmented:
    """A document with its boundaries: the first sentence of each new segment."""

    id: str
    group: str
    sentences: tuple[str, ...]
    boundaries: tuple[int, ...]


def evaluate_segmentation(
    data: Path,
    *,
    encoder: EncoderSpec = "default",
    backend: str = "auto",
    limit: int | None = None,
    seed: int = 0,
    segmenter: str = "",
    commands: Sequence[str] = (),
) -> Report:
    """P_k and WindowDiff (lower is better), over all documents and for each group; `segmenter`: the folder of
    one to measure, "" for the one that comes with the package.

    Raises UsageError where the file is missing or NLTK is not installed, IngestError for a bad line.
    """
    started = time.perf_counter()
    if not (data / DOCUMENTS).is_file():
        raise UsageError(
            f"There is no {DOCUMENTS} in {data}.", "A line holds id, group, sentences, boundaries."
        )
    documents = sample(read_documents(data / DOCUMENTS), limit, seed)
    loaded = load_encoder(encoder, backend=backend)
    vectors = _vectors(documents, loaded)
    trunk = loaded.identity.space
    methods: dict[str, Cut] = {
        OURS: _by(segmenter_for(trunk, segmenter), vectors),
        LIKENESS: _by(segmenter_for(trunk, LIKENESS), vectors),
        BASELINE: _texttiling(),
        "even": _even,
        "none": lambda document: [],
    }
    groups = ["all", *sorted({d.group for d in documents})]
    measured: dict[str, dict[str, Statistic]] = {}
    for name, cut in methods.items():
        rows = [_scores(document, cut(document)) for document in documents]
        measured[name] = {
            f"{metric}{'' if group == 'all' else ' ' + group}": mean_of(
                [r[metric] for r, d in zip(rows, documents, strict=True) if group in ("all", d.group)]
            )
            for group in groups
            for metric in ("pk", "windowdiff")
        }
    compared = {
        f"{OURS} - {other}": _difference(measured[OURS], measured[other]) for other in (LIKENESS, BASELINE)
    }
    return Report(
        BENCHMARK, data.resolve().name, len(documents), seed, figures(measured, seed), OURS,
        time.perf_counter() - started, tuple(commands), figures(compared, seed),
        details={"files": [DOCUMENTS], "sha256": files_hash([data / DOCUMENTS])},
        measured=measured, compared=compared,
    )  # fmt: skip


def read_documents(path: Path) -> list[Segmented]:
    """The documents of a file. Raises IngestError for a bad line."""
    found = []
    for record in read_records(path):
        sentences, boundaries = tuple(record.texts("sentences")), record.items("boundaries")
        if not all(isinstance(b, int) and 0 < b < len(sentences) for b in boundaries):
            raise record.error("has boundaries outside its sentences")
        found.append(
            Segmented(record.text("id"), record.text("group", ""), sentences, tuple(sorted(boundaries)))
        )
    return found


def _difference(a: dict[str, Statistic], b: dict[str, Statistic]) -> dict[str, Statistic]:
    return {metric: mean_of(a[metric].columns[0] - b[metric].columns[0]) for metric in a}


def _scores(document: Segmented, cuts: Sequence[int]) -> dict[str, float]:
    n, k = len(document.sentences), half_segment(document.boundaries, len(document.sentences))
    return {
        "pk": pk(document.boundaries, cuts, n, k),
        "windowdiff": windowdiff(document.boundaries, cuts, n, k),
    }


# --- methods ----------------------------------------------------------------------------------------


def _vectors(documents: Sequence[Segmented], encoder: Encoder) -> dict[str, Vectors]:
    texts = sorted({s for d in documents for s in d.sentences})
    return dict(zip(texts, encoder.encode(texts), strict=True))


def _by(segmenter: Segmenter | TopicSegmenter, vectors: Mapping[str, Vectors]) -> Cut:
    def cut(document: Segmented) -> list[int]:
        rows = np.stack([vectors[s] for s in document.sentences])
        return segmenter.boundaries(document.sentences, rows)

    return cut


def _texttiling() -> Cut:
    try:
        from nltk.tokenize.texttiling import TextTilingTokenizer
    except ImportError as error:
        raise UsageError("TextTiling needs NLTK.", "pip install 'agentmtl[eval]'") from error
    tiler = TextTilingTokenizer(stopwords=sorted(STOP_WORDS))  # given, so that nothing is downloaded

    def cut(document: Segmented) -> list[int]:
        text = "\n\n".join(document.sentences)
        try:
            pieces = tiler.tokenize(text)
        except ValueError:  # too short for its windows
            return []
        counts = [len([s for s in piece.split("\n\n") if s.strip()]) for piece in pieces]
        return [int(c) for c in np.cumsum(counts)[:-1] if 0 < c < len(document.sentences)]

    return cut


def _even(document: Segmented) -> list[int]:
    """As many boundaries as there are, at equal distances: it is told the number."""
    pieces = len(document.boundaries) + 1
    cuts = (round(len(document.sentences) * i / pieces) for i in range(1, pieces))
    return sorted({c for c in cuts if 0 < c < len(document.sentences)})
