"""SEAL's scores against a plain reading of the formula, and what must not change them."""

from __future__ import annotations

from math import log
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmtl import Document, Index
from agentmtl.errors import UsageError
from agentmtl.index.identifiers import Ngrams, ngrams_of
from agentmtl.retrieval.identifiers.keys import Context, Key, QueryNgrams, RelevanceModel
from agentmtl.retrieval.identifiers.scoring import Scoring, score_units

WORDS = ["cat", "dog", "river", "gold", "mat", "the", "ran", "straw"]
texts = st.lists(st.sampled_from(WORDS), min_size=3, max_size=12).map(" ".join)


def _index(folder: str | Path, corpus: list[str]) -> Index:
    index = Index.create(Path(folder) / "index", encoder="hashing:16")
    index.add(Document(f"d{i}", text) for i, text in enumerate(corpus))
    return index


def _weight(key: Key, ngrams: Ngrams, s: Scoring) -> float:
    from math import exp

    p = (ngrams.count(key.tokens) + s.smoothing) / (ngrams.tokens + s.smoothing)
    q = min(max(exp(key.logp), 1e-12), 1 - 1e-6)
    p = min(max(p, 1e-12), 1 - 1e-6)
    odds = max(0.0, log(q) + log(1 - p) - log(p) - log(1 - q))
    return float(odds ** (s.alpha if len(key.tokens) > 1 else 1.0)) if ngrams.count(key.tokens) else 0.0


def _plain(ngrams: Ngrams, tokens: list[int], keys: list[Key], s: Scoring) -> float:
    """The greedy walk as it is written, for one unit."""
    ordered = sorted(keys, key=lambda k: (-_weight(k, ngrams, s), k.tokens))
    taken: list[tuple[int, int]] = []
    seen: set[int] = set()
    score = 0.0
    for key in ordered:
        weight, n = _weight(key, ngrams, s), len(key.tokens)
        for at in range(len(tokens) - n + 1):
            free = not any(at < b and a < at + n for a, b in taken)
            if weight > 0 and tokens[at : at + n] == list(key.tokens) and free:
                distinct = set(key.tokens)
                score += (1 - s.beta + s.beta * len(distinct - seen) / len(distinct)) * weight
                seen |= distinct
                taken.append((at, at + n))
                break
    return score


@settings(max_examples=25, deadline=None)
@given(
    corpus=st.lists(texts, min_size=2, max_size=5),
    grams=st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=3), min_size=1, max_size=6),
    chances=st.lists(st.floats(0.001, 0.9), min_size=6, max_size=6),
)
def test_scores_are_the_formula_and_absent_keys_change_nothing(
    corpus: list[str], grams: list[list[str]], chances: list[float]
) -> None:
    with TemporaryDirectory() as folder:
        index = _index(folder, corpus)
        ngrams = ngrams_of(index.snapshot)
        encode = ngrams.tokenizer.encode
        keys = [Key(tuple(encode(" ".join(g))), log(p)) for g, p in zip(grams, chances, strict=False)]
        keys = list({k.tokens: k for k in sorted(keys, key=lambda k: k.logp)}.values())
        for s in (Scoring(), Scoring(rare=2, beta=0.5, alpha=1.0)):
            found = score_units(ngrams, keys, "passage", s)
            got = dict(
                zip(
                    zip(found.segments.tolist(), found.positions.tolist(), strict=True),
                    found.scores,
                    strict=True,
                )
            )
            for address, score in got.items():
                tokens = [int(t) for t in ngrams.unit_tokens("passage", *address)]
                assert score == pytest.approx(_plain(ngrams, tokens, keys, s))
            absent = [Key((ngrams.tokenizer.vocabulary - 1, 5), log(0.5)), Key((10**6,), -1.0)]
            again = score_units(ngrams, [*absent, *keys[::-1]], "passage", s)
            assert again.scores.tolist() == found.scores.tolist()
            assert again.positions.tolist() == found.positions.tolist()


def test_units_that_are_asked_for_are_scored_by_frequent_keys_too(tmp_path: Path) -> None:
    index = _index(tmp_path, ["The cat sat on the mat.", "The cat ran.", "The cat slept.", "A dog sat."])
    ngrams = ngrams_of(index.snapshot)
    keys = [Key(tuple(ngrams.tokenizer.encode(word)), log(p)) for word, p in (("cat", 0.5), ("mat", 0.4))]
    every = score_units(ngrams, keys, "passage", Scoring(smoothing=0.1))
    whole = dict(zip(every.positions.tolist(), every.scores.tolist(), strict=True))
    tight = Scoring(smoothing=0.1, rare=1, candidates=1)
    assert score_units(ngrams, keys, "passage", tight).positions.tolist() == [0]  # "cat" names none
    found = score_units(ngrams, keys, "passage", tight, only=[(0, 1), (0, 3), (0, 0)])
    assert dict(zip(found.positions.tolist(), found.scores.tolist(), strict=True)) == {
        position: whole[position] for position in (0, 1)
    }
    assert not len(score_units(ngrams, keys, "passage", tight, only=[]).scores)


@pytest.mark.parametrize("proposer", [QueryNgrams(), RelevanceModel()])
def test_every_proposed_key_occurs_and_says_something(tmp_path: Path, proposer: QueryNgrams) -> None:
    index = _index(tmp_path, ["The cat sat on the mat.", "A dog ran to the river of gold."])
    ngrams = ngrams_of(index.snapshot)
    context = Context("passage", [(0, 0), (0, 1)], [1.0, 0.5])
    keys = proposer.propose("Was the dog on the mat, or a zebra?", ngrams, context)
    assert keys and keys == proposer.propose("Was the dog on the mat, or a zebra?", ngrams, context)
    spelt = {ngrams.tokenizer.decode(key.tokens) for key in keys}
    assert all(ngrams.count(key.tokens) >= 1 and key.logp <= 0 for key in keys)
    assert "the" not in spelt and not any("zebra" in text for text in spelt) and "mat" in spelt


def test_the_channel_explains_itself_and_respects_filters_and_deletions(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "index", encoder="hashing:16")
    index.add(
        [
            Document("a", "The keeper of Far Point lit the lamp.", metadata={"year": 1}),
            Document("b", "Nobody lit the lamp of Far Point.", metadata={"year": 2}),
            # a key says something only where it is rarer in the corpus than in the query
            *(Document(f"n{i}", f"Bread, flour and water for town {i}.") for i in range(40)),
        ]
    )
    hits = index.retrieve("Who lit the lamp of Far Point?", channel="identifiers")
    assert len(hits) == 2
    for hit in hits:
        stored = hit.unit.text
        assert hit.identifiers
        for key in hit.identifiers:
            assert key.count >= 1 and stored[key.start : key.end].casefold() == key.text.casefold()
    only = index.retrieve("lamp of Far Point", channel="identifiers", where="year == 2")
    assert [h.unit.source_id for h in only] == ["b"]
    index.delete(["b"])
    left = [h.unit.source_id for h in index.retrieve("lamp of Far Point", channel="identifiers")]
    assert left[0] == "a" and "b" not in left
    assert "identifiers" in index.retrieve("lamp of Far Point")[0].to_json()["channels"]


def test_without_a_stream_the_fusion_has_two_channels_and_the_channel_says_why(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "index", encoder="hashing:16", streams=())
    index.add([Document("a", "The lamp was lit.")])
    assert set(index.retrieve("lamp")[0].channels) == {"dense", "lexical"}
    with pytest.raises(UsageError, match="no token stream"):
        index.retrieve("lamp", channel="identifiers")
