"""Documents gathered in memory until they become a segment: their units, vectors and postings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from agentmtl.errors import EncoderError
from agentmtl.index.instructions import Cards, told_by_head
from agentmtl.index.manifest import IndexSettings
from agentmtl.index.postings import build_postings
from agentmtl.index.rows import FileNote, RowsBuilder, UnitRow, document_row
from agentmtl.index.segment import ID_BYTES, LevelParts
from agentmtl.ingest import Cut, unit_id
from agentmtl.schema import Document, Level, Unit
from agentmtl.trunk.encoder import Encoder, Side, Vectors

ENCODE_WINDOW = 2_048  # texts handed to the encoder at a time: enough to sort by length, small in memory

_HEADED = (
    "demonstration\0"  # begins what is hashed of a text that a head embeds: the trunk's vector is another
)

KnownVectors = Callable[[Sequence[bytes]], Mapping[bytes, Vectors]]  # text hashes → vectors (1-D) at hand
Progress = Callable[[int], None]  # called with a number of units done


@dataclass
class Batch:
    """`documents` by key, in the order they came."""

    documents: dict[str, tuple[Document, Cut]] = field(default_factory=dict)
    files: dict[str, FileNote] = field(default_factory=dict)
    units: int = 0
    characters: int = 0

    def add(self, document: Document, cut: Cut) -> None:
        self.documents[document.key] = (document, cut)
        self.units += _unit_count(cut)
        self.characters += len(document.text)

    def remove(self, key: str) -> None:
        document, cut = self.documents.pop(key)
        self.units -= _unit_count(cut)
        self.characters -= len(document.text)


def _unit_count(cut: Cut) -> int:
    return 1 + len(cut.passages) + len(cut.sentences)


def index_text(unit: Unit, settings: IndexSettings) -> str:
    """What is encoded and matched for a unit: a document or passage carries the title in front."""
    if unit.level not in ("document", "passage") or not settings.title_prefix or not unit.title:
        return unit.text
    return unit.text if unit.text.startswith(unit.title) else f"{unit.title}\n{unit.text}"


def text_hash(text: str) -> bytes:
    """Names an encoded text, so that equal text is never encoded twice."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def entity_id(name: str) -> bytes:
    return bytes.fromhex(unit_id("entity", "", 0, 0, name))


@dataclass
class _LevelRows:
    units: list[UnitRow] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    told: dict[bytes, str] = field(default_factory=dict)  # by hash

    def add(
        self, unit: bytes, doc: int, span: tuple[int, int], parent: str | None, text: str, told: str = ""
    ) -> int:
        """`told`: what is encoded of a labelled example that a head embeds; else it is the text."""
        parent_id = bytes.fromhex(parent) if parent else None
        hashed = text_hash(_HEADED + told) if told else text_hash(text)
        row = UnitRow(len(self.units), unit, doc, *span, parent_id, None, hashed)
        self.units.append(row)
        self.texts.append(text)
        if told:
            self.told[hashed] = told
        return row.pos


class SegmentDraft:
    """A batch turned into rows, ready to be encoded and written. `cards` of tasks say how their examples
    are encoded."""

    def __init__(self, batch: Batch, settings: IndexSettings, cards: Cards | None = None) -> None:
        self.settings, self._cards = settings, cards or {}
        self.builder = RowsBuilder()
        self.documents = len(batch.documents)
        self.levels: dict[Level, _LevelRows] = {level: _LevelRows() for level in settings.stored_levels}
        self.passages_of: list[range] = []
        self.mentions: dict[str, list[tuple[int, int, int]]] = {}
        for row, (document, cut) in enumerate(batch.documents.values()):
            told = told_by_head(settings, self._cards, document)
            self.builder.add_documents([document_row(row, document, told)])
            self._add_cut(row, cut, told)
        self.builder.add_files(batch.files)

    def _add_cut(self, row: int, cut: Cut, told: str) -> None:
        for unit in cut.demonstrations:
            span = (unit.start, unit.end)
            self.levels["demonstration"].add(bytes.fromhex(unit.id), row, span, None, unit.text, told)
        if cut.demonstrations:  # has no other units
            return
        first = len(self.levels["passage"].units) if "passage" in self.levels else 0
        for unit in (cut.document, *cut.passages, *cut.sentences):
            if unit.level in self.levels:
                text = index_text(unit, self.settings)
                span = (unit.start, unit.end)
                self.levels[unit.level].add(bytes.fromhex(unit.id), row, span, unit.parent, text)
        self.passages_of.append(range(first, first + len(cut.passages)))
        if "entity" in self.levels:
            for m in cut.mentions:
                self.mentions.setdefault(m.name, []).append((first + m.passage, m.start, m.end))

    def add_entities(self, is_known: Callable[[Sequence[bytes]], set[bytes]]) -> None:
        """Make a unit of every mentioned name that the index does not hold yet."""
        ids = {name: entity_id(name) for name in self.mentions}
        known = is_known(list(ids.values()))
        entities = self.levels.get("entity")
        for name, spans in self.mentions.items():
            self.builder.add_mentions((ids[name], *span) for span in spans)
            if entities is not None and ids[name] not in known:
                row = UnitRow(len(entities.units), ids[name], -1, 0, len(name), None, name, text_hash(name))
                entities.units.append(row)
                entities.texts.append(name)

    def finish(
        self, encoder: Encoder, known: KnownVectors, progress: Progress
    ) -> tuple[bytes, dict[Level, LevelParts]]:
        """Encode what is new and give the parts of a segment: (database bytes, levels)."""
        encoded = [level for level in self.levels if level != "document"]
        vectors = self._vectors(encoded, encoder, known, progress)
        parts: dict[Level, LevelParts] = {}
        for level, rows in self.levels.items():
            if not rows.units:
                continue
            self.builder.add_units(level, rows.units)
            if level == "document":
                matrix = self._document_vectors(vectors)
            else:
                matrix = np.stack([vectors[unit.text_hash] for unit in rows.units])
            parts[level] = LevelParts(
                ids=np.frombuffer(b"".join(u.id for u in rows.units), np.uint8).reshape(-1, ID_BYTES),
                docs=np.fromiter((u.doc for u in rows.units), np.int32, len(rows.units)),
                postings=build_postings(rows.texts),
                vectors=[matrix],
            )
        return self.builder.finish(), parts

    def _vectors(
        self, levels: Sequence[Level], encoder: Encoder, known: KnownVectors, progress: Progress
    ) -> dict[bytes, Vectors]:
        texts = {
            unit.text_hash: text
            for level in levels
            for unit, text in zip(self.levels[level].units, self.levels[level].texts, strict=True)
        }
        if "passage" not in levels and "document" in self.levels:
            rows = self.levels["document"]
            texts |= {u.text_hash: t for u, t in zip(rows.units, rows.texts, strict=True)}
        vectors = dict(known(list(texts)))
        progress(len(vectors))
        told = self.levels["demonstration"].told if "demonstration" in levels else {}
        missing = [h for h in texts if h not in vectors]
        parts: tuple[tuple[list[bytes], Mapping[bytes, str], Side], ...] = (
            ([h for h in missing if h not in told], texts, "document"),
            ([h for h in missing if h in told], told, "demonstration"),
        )
        for hashes, of, side in parts:
            for start in range(0, len(hashes), ENCODE_WINDOW):
                window = hashes[start : start + ENCODE_WINDOW]
                made = encode_checked(encoder, [of[h] for h in window], side)
                vectors.update(zip(window, made, strict=True))
                progress(len(window))
        return vectors

    def _document_vectors(self, vectors: Mapping[bytes, Vectors]) -> Vectors:
        """The mean of a document's passage vectors at unit length: no text is cut off, no call is made."""
        if "passage" not in self.levels:
            return np.stack([vectors[u.text_hash] for u in self.levels["document"].units])
        passages = self.levels["passage"].units
        means = [
            vectors[passages[r.start].text_hash]
            if len(r) == 1
            else np.mean([vectors[passages[p].text_hash] for p in r], axis=0)
            for r in self.passages_of
        ]
        matrix = np.stack(means).astype(np.float32)
        if self.settings.encoder.normalised:
            many = np.fromiter((len(r) != 1 for r in self.passages_of), np.bool_)
            norms = np.linalg.norm(matrix[many], axis=1, keepdims=True)
            matrix[many] /= np.maximum(norms, np.float32(1e-12))
        return matrix


def encode_checked(encoder: Encoder, texts: Sequence[str], side: Side = "document") -> Vectors:
    """Encode, and refuse vectors of a wrong shape or with NaN or infinity in them."""
    given = encoder.encode(texts) if side == "document" else encoder.encode(texts, side)
    try:
        vectors = np.asarray(given, np.float32)
    except (ValueError, TypeError) as error:  # rows of different lengths, or no numbers at all
        raise EncoderError(f"The encoder did not return vectors: {error}.", "Check the encoder.") from error
    wanted = (len(texts), encoder.identity.dimension)
    if vectors.shape != wanted:
        raise EncoderError(
            f"The encoder returned vectors of shape {vectors.shape}, not {wanted}.", "Check the encoder."
        )
    if not np.isfinite(vectors).all():
        bad = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise EncoderError(
            f"The encoder returned NaN or infinity for {texts[bad][:60]!r}.",
            "Try another backend: --backend torch-fp32",
        )
    return vectors
