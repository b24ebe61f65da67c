"""The embedded reader: a short answer read out of passages by the trunk's reader head, or yes, or no.

Every passage is read alone, and a passage that a name led to also after the one that named it. Their spans
compete by how far each stands above "no answer here", by whether the passage looks like the one to read, and
with the passages' order as a prior.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agentmtl.errors import EncoderError
from agentmtl.experts.answer_type import type_match
from agentmtl.experts.expert import Needs
from agentmtl.experts.quoting import unmarked
from agentmtl.experts.reading import Calibration, Features, Reading, Span, readings_of
from agentmtl.ingest.sentences import split_sentences
from agentmtl.schema import Candidate, Citation, Evidence, Hit, Unit
from agentmtl.trunk.head_network import HeadNetwork
from agentmtl.trunk.pairs import Window

MAX_CHAINS = 3  # pairs of passages read together
_BETWEEN = " "
_SHORTEST_NAME = 3  # characters of a title that is looked for in other passages
_JUDGED = 3  # contexts that say yes or no together
_VERBS = "is are was were am do does did has have had can could will would shall should may might must"
_AUXILIARIES = frozenset(_VERBS.split())


@dataclass(frozen=True, slots=True)
class ReaderSettings:
    """`passages` are read, at most. `rank`: what each place further down costs, in log-odds. `here`: the
    weight of the log-probability that a context is the one to read. `type`: what an answer of the kind asked
    for gains, and one of another loses.

    `agreement`: the temperature at which places of the same answer add up (0: the best one counts alone).
    """

    passages: int = 6
    rank: float = 1.5
    here: float = 2.0
    type: float = 1.0
    agreement: float = 3.0


@dataclass(frozen=True, slots=True)
class Part:
    """A passage inside a context: it begins at `at`, after a heading of its title."""

    hit: Hit
    at: int


@dataclass(frozen=True, slots=True)
class Context:
    """What is read at once: a passage, or that which leads to it and the passage.

    `place`: of the passage among those given. `parent`: a passage that holds `name` (lower case), which leads
    here; None where the question alone does.
    """

    text: str
    parts: tuple[Part, ...]
    place: int
    parent: Hit | None = None
    name: str = ""


class ReaderExpert:
    """Reads with a head over the default trunk, or any other network of that kind."""

    name = "reader"
    card = "Short answers to questions, read out of passages: a name, a date, a number, yes or no."
    needs: Needs = "passages"

    def __init__(self, network: HeadNetwork, settings: ReaderSettings | None = None) -> None:
        """Raises EncoderError for a head without a calibration."""
        calibration = Calibration.of(network.head.card)
        if calibration is None:
            raise EncoderError(
                "The reader's head has no calibration.", "Make it again: agentmtl train reader"
            )
        self._network = network
        self._calibration = calibration
        self._settings = settings or ReaderSettings()

    @property
    def passages(self) -> int:
        """How many it reads at most."""
        return self._settings.passages

    def reading(self, passages: int) -> ReaderExpert:
        """The same, reading so many passages at most."""
        return ReaderExpert(self._network, replace(self._settings, passages=passages))

    @property
    def threshold(self) -> float:
        """The confidence below which the agent abstains, unless told otherwise."""
        return self._calibration.asked_threshold

    def propose(
        self, question: str, evidence: Evidence, demonstrations: Sequence[Hit] = (), n: int = 1
    ) -> list[Candidate]:
        """Up to `n` different answers, best first.

        Each cites the words it consists of, and for a passage of a later hop the name that led there.
        Raises EncoderError where the head cannot run.
        """
        contexts, readings = self._read(question, evidence)
        if not readings:
            return []
        if asks_yes_or_no(question):
            return [self._yes_or_no(contexts, readings)]
        ranked = self._ranked(question, contexts, readings)
        return [
            replace(one.candidate, confidence=self._calibration.of_asked(one.features(ranked, n)))
            for n, one in enumerate(ranked[:n])
        ]

    def features(self, question: str, evidence: Evidence) -> tuple[Candidate, Features] | None:
        """The best short answer with what its confidence is made from; None where there is none."""
        contexts, readings = self._read(question, evidence)
        ranked = self._ranked(question, contexts, readings)
        return (ranked[0].candidate, ranked[0].features(ranked, 0)) if ranked else None

    def side(self, question: str, evidence: Evidence) -> float | None:
        """How far yes stands above no, in log-odds; None where there is nothing to read."""
        readings = self._read(question, evidence)[1]
        return _side(readings) if readings else None

    def _read(self, question: str, evidence: Evidence) -> tuple[list[Context], dict[int, Reading]]:
        contexts = list(contexts_of(evidence.passages[: self._settings.passages], question))
        if not contexts:
            return [], {}
        windows = self._network.cutter.windows([question] * len(contexts), [c.text for c in contexts])
        windows = [_without_headings(window, contexts[window.pair]) for window in windows]
        return contexts, readings_of(windows, self._network.run(windows))

    def _ranked(
        self, question: str, contexts: Sequence[Context], readings: Mapping[int, Reading]
    ) -> list[_Ranked]:
        """Different answers by worth: that of their best place, more where several contexts agree."""
        found: dict[str, list[_Ranked]] = {}
        for pair, reading in readings.items():
            place = contexts[pair].place
            prior = -self._settings.here * float(np.logaddexp(0.0, -reading.here))
            prior -= self._settings.rank * place
            for margin, candidate in self._candidates(contexts[pair], reading):
                fits = type_match(question, candidate.citations[-1].text)
                worth = margin + prior + self._settings.type * fits
                found.setdefault(_normalised(candidate.text), []).append(
                    _Ranked(worth, place, reading.here, fits, candidate)
                )
        ranked = [self._pooled(same) for key, same in found.items() if key]
        return sorted(ranked, key=lambda one: (-one.worth, one.place, one.candidate.text))

    def _pooled(self, same: Sequence[_Ranked]) -> _Ranked:
        chosen = max(same, key=lambda one: (one.worth, -one.place))
        best: dict[tuple[str, int], float] = {}  # a place that several contexts hold counts once
        for one in same:
            at = one.candidate.citations[-1].unit_id, one.candidate.citations[-1].start
            best[at] = max(best.get(at, one.worth), one.worth)
        agreement, worth = self._settings.agreement, chosen.worth
        if agreement > 0:
            worths = np.array(list(best.values())) / agreement
            worth = float(agreement * (np.log(np.exp(worths - worths.max()).sum()) + worths.max()))
        return replace(chosen, worth=worth, places=len(best))

    async def apropose(
        self, question: str, evidence: Evidence, demonstrations: Sequence[Hit] = (), n: int = 1
    ) -> list[Candidate]:
        """`propose` in a worker thread."""
        return await asyncio.to_thread(self.propose, question, evidence, demonstrations, n)

    def _yes_or_no(self, contexts: Sequence[Context], readings: Mapping[int, Reading]) -> Candidate:
        """Yes or no by the mean over the first contexts, citing the first passage's best sentence whole.

        Its confidence is how far it is better than guessing.
        """
        pairs, above = sorted(readings)[:_JUDGED], _side(readings)
        sure = max(0.0, 2 * self._calibration.of_side(abs(above)) - 1)
        hit = contexts[pairs[0]].parts[-1].hit
        spans = [s for s in readings[pairs[0]].spans if s.start >= contexts[pairs[0]].parts[-1].at]
        at = spans[0].start - contexts[pairs[0]].parts[-1].at if spans else 0
        start, end = _sentence(hit.unit, at, at + 1)
        text = f"{'yes' if above >= 0 else 'no'} [1]"
        return Candidate(text, (_citation(1, hit, start, end, "", hit.hop),), sure, self.name)

    def _candidates(self, context: Context, reading: Reading) -> Iterator[tuple[float, Candidate]]:
        """(margin, candidate) of a context's best spans."""
        for span in reading.spans:
            cited = _cited(context, span)
            if cited:
                text = f"{_quoted(cited[-1].text)} " + "".join(f"[{c.marker}]" for c in cited)
                yield span.margin, Candidate(text, cited, 0.0, self.name)


@dataclass(frozen=True, slots=True)
class _Ranked:
    """An answer: what it is worth, in log-odds; the passage of its best place, and whether that is the one to
    read; whether the answer is of the kind asked for; how many places say it."""

    worth: float
    place: int
    here: float
    type: float
    candidate: Candidate
    places: int = 1

    def features(self, ranked: Sequence[_Ranked], at: int) -> Features:
        """`ASKED`: the gap is how far it stands above the best other one, 0 where there is none."""
        others = [one.worth for n, one in enumerate(ranked[: at + 2]) if n != at]
        gap = self.worth - max(others, default=self.worth)
        return self.worth, gap, float(self.place), self.here, float(np.log(self.places)), self.type


def _side(readings: Mapping[int, Reading]) -> float:
    """How far yes stands above no, in the mean over the first contexts."""
    yes, no = np.mean([readings[pair].kinds[1:] for pair in sorted(readings)[:_JUDGED]], axis=0).tolist()
    return float(yes - no)


def asks_yes_or_no(question: str) -> bool:
    """Whether a question begins as one that yes or no answers (English)."""
    words = question.split()
    return bool(words) and words[0].lower() in _AUXILIARIES and " or " not in question


# --- contexts -----------------------------------------------------------------------------------------


def contexts_of(passages: Sequence[Hit], question: str = "") -> Iterator[Context]:
    """Every passage alone, and one that a name leads to also after the best passage that holds the name.

    That is the name which the hop search followed, or the passage's title where the question lacks it and a
    better passage has it.
    """
    chains = 0
    for place, hit in enumerate(passages):
        followed = hit.hop > 1 and bool(hit.keys)
        name = hit.keys[0].lower() if followed else _asked_about(hit, question)
        parent = _parent(hit, name, passages if followed else passages[:place])
        yield _joined([hit], place, parent, name)
        if parent is not None and chains < MAX_CHAINS:
            chains += 1
            yield _joined([parent, hit], place, parent, name)


def _asked_about(hit: Hit, question: str) -> str:
    """A passage's title where the question lacks it."""
    title = hit.unit.title.lower()
    return title if len(title) >= _SHORTEST_NAME and title not in question.lower() else ""


def _parent(hit: Hit, name: str, passages: Sequence[Hit]) -> Hit | None:
    """The best passage of another document that holds the name which leads to this one."""
    if not name:
        return None
    others = (other for other in passages if other.unit.source_id != hit.unit.source_id)
    return next((other for other in others if name in other.text.lower()), None)


def _joined(hits: Sequence[Hit], place: int, parent: Hit | None, name: str) -> Context:
    text, parts = "", []
    for hit in hits:
        text += (_BETWEEN if text else "") + (f"{hit.unit.title}. " if hit.unit.title else "")
        parts.append(Part(hit, len(text)))
        text += hit.text
    return Context(text, tuple(parts), place, parent, name)


def _without_headings(window: Window, context: Context) -> Window:
    """The window with no answer to be found in a title, which is no stored text."""
    inside = (window.starts < 0) & False
    for part in context.parts:
        inside |= (window.starts >= part.at) & (window.ends <= part.at + len(part.hit.text))
    starts, ends = window.starts.copy(), window.ends.copy()
    starts[~inside] = ends[~inside] = -1
    return replace(window, starts=starts, ends=ends)


# --- citations ----------------------------------------------------------------------------------------


def _cited(context: Context, span: Span) -> tuple[Citation, ...]:
    """The name that led to the answer's passage, where one did, and the answer; () where a span runs over the
    end of a passage or of a line, from a heading into the text say."""
    part = next((p for p in context.parts if p.at <= span.start and span.end <= p.at + len(p.hit.text)), None)
    if part is None or "\n" in context.text[span.start : span.end].strip():
        return ()
    answer = (part.hit, span.start - part.at, span.end - part.at)
    steps = [answer]
    if part is context.parts[-1] and context.parent is not None:
        at = context.parent.text.lower().find(context.name)
        if at >= 0:
            steps.insert(0, (context.parent, at, at + len(context.name)))
    return tuple(
        _citation(n, hit, start, end, _around(hit.unit, start, end), max(n, hit.hop))
        for n, (hit, start, end) in enumerate(steps, 1)
    )


def _citation(marker: int, hit: Hit, start: int, end: int, sentence: str, hop: int) -> Citation:
    unit = hit.unit
    return Citation(
        marker, unit.id, unit.source_id, unit.start + start, unit.start + end, unit.text[start:end],
        unit.title, unit.file, hop, sentence,
    )  # fmt: skip


def _around(unit: Unit, start: int, end: int) -> str:
    """The sentence that holds [start, end) of a passage, or both where it runs over two."""
    return unit.text[slice(*_sentence(unit, start, end))]


def _sentence(unit: Unit, start: int, end: int) -> tuple[int, int]:
    held = [(a, b) for a, b in split_sentences(unit.text) if a < end and start < b]
    return (held[0][0], held[-1][1]) if held else (start, end)


def _quoted(text: str) -> str:
    """White space squeezed; "[3]" becomes "(3)", so that it cannot pass for a citation."""
    return unmarked(" ".join(text.split()))


def _normalised(text: str) -> str:
    """What makes two answers the same: their words, without markers."""
    return " ".join(re.findall(r"\w+", re.sub(r"\[\d+\]", "", text).lower()))
