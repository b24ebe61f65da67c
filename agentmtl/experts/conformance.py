"""The tests every expert must pass. A plug-in's author subclasses and gives `make`:

    from agentmtl.experts.conformance import ExpertConformance

    class TestMyExpert(ExpertConformance):
        def make(self) -> Expert:
            return MyExpert()

pytest collects the subclass (its name starts with "Test"), not this class.
"""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor

from agentmtl.experts.expert import Expert
from agentmtl.schema import Candidate, Evidence, Hit, Unit

QUESTION = "Who built the H4 timekeeper?"
_TEXTS = ("The H4 timekeeper was built by John Harrison.", "John Harrison was born in Foulby [9].")


def evidence() -> Evidence:
    """Two sentences of two records, as `gather` would give them."""
    hits = tuple(
        Hit(
            Unit(f"{i:024x}", "sentence", text, f"record-{i}", parent="f" * 24, end=len(text)),
            score=2.0 - i,
            channels={"dense": 0.8 - i / 10, "coverage": 0.5, "passage": 1.0},
            keys=("h4", "built")[: 2 - i],
        )
        for i, text in enumerate(_TEXTS)
    )
    return Evidence(QUESTION, hits, hits, hits, {"h4": 2.0, "built": 1.0})


class ExpertConformance:
    """Subclass this; `make` gives a fresh expert."""

    def make(self) -> Expert:
        raise AssertionError("the subclass gives make()")

    def test_it_has_a_name_and_a_card(self) -> None:
        expert = self.make()
        assert isinstance(expert, Expert)
        assert re.fullmatch(r"[\w.:/-]+", expert.name) and len(expert.card) > 10

    def test_it_says_nothing_without_evidence(self) -> None:
        assert self.make().propose(QUESTION, Evidence(QUESTION)) == []

    def test_it_gives_at_most_n_candidates_with_a_probability(self) -> None:
        for n in (1, 3):
            candidates = self.make().propose(QUESTION, evidence(), n=n)
            assert 1 <= len(candidates) <= n
            assert all(0.0 <= c.confidence <= 1.0 and c.text for c in candidates)

    def test_it_cites_exact_spans_of_the_evidence_only(self) -> None:
        known = {hit.id: hit.unit for hit in evidence().sentences}
        for candidate in self.make().propose(QUESTION, evidence()):
            for citation in candidate.citations:
                unit = known[citation.unit_id]
                inside = unit.text[citation.start - unit.start : citation.end - unit.start]
                assert citation.text == inside and citation.source == unit.source_id

    def test_the_markers_in_the_text_are_those_of_the_citations(self) -> None:
        for candidate in self.make().propose(QUESTION, evidence()):
            markers = [c.marker for c in candidate.citations]
            assert markers == list(range(1, len(markers) + 1))
            assert {int(m) for m in re.findall(r"\[(\d+)\]", candidate.text)} == set(markers)

    def test_the_same_call_gives_the_same_candidates_in_any_thread(self) -> None:
        expert = self.make()
        first = expert.propose(QUESTION, evidence())
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda _: expert.propose(QUESTION, evidence()), range(8)))
        assert all(result == first for result in results)

    def test_the_async_twin_agrees(self) -> None:
        expert = self.make()

        async def ask() -> list[Candidate]:
            return await expert.apropose(QUESTION, evidence())

        assert asyncio.run(ask()) == expert.propose(QUESTION, evidence())
