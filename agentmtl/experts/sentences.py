"""The embedded answerer: it quotes the best-supported sentences, and needs no model but the encoder.

Sentences are chosen greedily: the best one, then those that add words of the question that the chosen
ones leave out, as long as they are not much weaker than the first (maximum coverage with a stop; compare
Carbonell & Goldstein, "The Use of MMR", SIGIR 1998). The confidence that the evidence answers at all
comes from `experts.support`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentmtl.experts.expert import Needs
from agentmtl.experts.quoting import unmarked
from agentmtl.experts.support import SupportModel
from agentmtl.schema import Candidate, Citation, Evidence, Hit

NAME = "sentences"


@dataclass(frozen=True, slots=True)
class SentenceSettings:
    """Chosen on hotpotqa (its train part); `docs/decisions.md` has the numbers."""

    most: int = 3  # sentences quoted in an answer, at most
    considered: int = 12  # best sentences of the evidence to choose from
    novelty: float = 2.0  # weight of the idf-weighted share of the question that is newly covered
    repeated: float = 0.2  # taken off for a sentence of a record that is quoted already
    chained: float = 0.3  # added for a second-hop sentence whose bridge a quoted sentence names
    stop: float = 0.7  # of the first sentence's score: what a further one must reach


class SentenceExpert:
    """Quotes sentences of the evidence. `threshold` is the calibrated confidence to abstain below."""

    name = NAME
    needs: Needs = "sentences"
    card = "Answers factual questions by quoting the sentences of the documents that support the answer."

    def __init__(self, settings: SentenceSettings | None = None, support: SupportModel | None = None) -> None:
        self._settings = settings or SentenceSettings()
        self._support = support or SupportModel.load()
        self.threshold = self._support.threshold

    def propose(
        self, question: str, evidence: Evidence, demonstrations: Sequence[Hit] = (), n: int = 1
    ) -> list[Candidate]:
        """One answer of up to three quoted sentences, [] where there is no sentence.

        Demonstrations are of no use to it, and it has only one answer to give, whatever `n`.
        """
        if not evidence.sentences:
            return []
        chosen = sorted(self._choose(evidence), key=lambda hit: hit.hop)
        confidence = self._support.score_evidence(evidence)
        return [Candidate(answer_text(chosen), citations(chosen), confidence, NAME)]

    async def apropose(
        self, question: str, evidence: Evidence, demonstrations: Sequence[Hit] = (), n: int = 1
    ) -> list[Candidate]:
        """`propose` in a worker thread."""
        return await asyncio.to_thread(self.propose, question, evidence, demonstrations, n)

    def _choose(self, evidence: Evidence) -> list[Hit]:
        pool = list(evidence.sentences[: self._settings.considered])
        chosen: list[Hit] = []
        while pool and len(chosen) < self._settings.most:
            best = max(pool, key=lambda hit: self._worth(hit, chosen, evidence.idf))
            if chosen and self._worth(best, chosen, evidence.idf) < self._settings.stop * chosen[0].score:
                break
            chosen.append(best)
            pool.remove(best)
        return _without_redundant(chosen)

    def _worth(self, hit: Hit, chosen: Sequence[Hit], weights: Mapping[str, float]) -> float:
        s = self._settings
        covered = {key for other in chosen for key in other.keys}
        fresh = sum(weights.get(key, 0.0) for key in set(hit.keys) - covered)
        fresh /= sum(weights.values()) or 1.0
        repeats = any(other.unit.source_id == hit.unit.source_id for other in chosen)
        chains = hit.hop == 2 and any(hit.keys[0] in other.text for other in chosen)
        return hit.score + s.novelty * fresh - s.repeated * repeats + s.chained * chains


def _without_redundant(chosen: Sequence[Hit]) -> list[Hit]:
    """Where a second hop is quoted, leave out sentences of hop 1, but the first, that add no matched word."""
    kept = list(chosen)
    if all(hit.hop == 1 for hit in kept):
        return kept
    for hit in reversed(chosen[1:]):
        elsewhere = {key for other in kept if other is not hit for key in other.keys}
        if hit.hop == 1 and set(hit.keys) <= elsewhere:
            kept.remove(hit)
    return kept


def citations(sentences: Sequence[Hit]) -> tuple[Citation, ...]:
    """A citation a sentence, marked 1, 2 … in order."""
    return tuple(
        Citation(
            marker=marker,
            unit_id=hit.unit.id,
            source=hit.unit.source_id,
            start=hit.unit.start,
            end=hit.unit.end,
            text=hit.unit.text,
            title=hit.unit.title,
            file=hit.unit.file,
        )
        for marker, hit in enumerate(sentences, 1)
    )


def answer_text(sentences: Sequence[Hit]) -> str:
    """The sentences on one line, each followed by its marker. Markers the text itself holds are defused."""
    return " ".join(f"{_quoted(hit.text)} [{marker}]" for marker, hit in enumerate(sentences, 1))


def _quoted(text: str) -> str:
    """White space squeezed; "[3]" in the text becomes "(3)", so that it cannot pass for a citation."""
    return unmarked(" ".join(text.split()))
