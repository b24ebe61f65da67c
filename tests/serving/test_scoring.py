"""Scores of texts by a real server: they are the model's own probabilities."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from agentmtl import Index
from agentmtl.errors import UsageError
from agentmtl.experts.conditioned import ConditionedReader
from agentmtl.experts.scoring import Scorer
from agentmtl.integrations.causal import CausalScorer
from agentmtl.integrations.chat_vllm import ChatVLLM
from agentmtl.learn.feedback import LikelihoodScorer, Pool
from agentmtl.schema import Demonstration
from agentmtl.tasks import Task

pytestmark = pytest.mark.server

TINY = Path(__file__).parent / "tiny"
PROMPT = "The lighthouse of Tarn was built by"
SAID = [" Mira Holm.", " Jonas Berg.", " the sea, which nobody expected"]


def test_a_score_sums_what_the_server_says_of_each_token(spare_chat: ChatVLLM) -> None:
    assert isinstance(spare_chat, Scorer)
    scores = spare_chat.score(PROMPT, SAID)
    for said, score in zip(SAID, scores, strict=True):
        body = {"model": "tiny", "prompt": PROMPT + said, "max_tokens": 1, "echo": True, "logprobs": 0}
        told = spare_chat.http.post(f"{spare_chat.http.url}/completions", body)["choices"][0]["logprobs"]
        ends = told["text_offset"][1:]  # the last token is the one that was generated
        read = list(zip(ends, told["token_logprobs"], strict=False))
        expected = [value for end, value in read if end > len(PROMPT)]  # also one that reaches over it
        assert score.tokens == len(expected) and score.logprob == pytest.approx(sum(expected), abs=0.05)
        assert score.mean == pytest.approx(score.logprob / score.tokens) and score.logprob < 0


def test_pairs_are_scored_together_as_they_are_alone(spare_chat: ChatVLLM) -> None:
    pairs = [(f"Question {n}: what is it?", f" Answer {n % 7}.") for n in range(70)]  # two requests
    together = spare_chat.score_pairs(pairs)
    assert len(together) == 70
    for at in (0, 13, 69):
        (alone,) = spare_chat.score(pairs[at][0], [pairs[at][1]])
        assert alone.tokens == together[at].tokens
        assert alone.logprob == pytest.approx(together[at].logprob, abs=0.1)
    assert all(math.isfinite(score.logprob) for score in together)


def test_empty_texts_are_refused_before_anything_is_asked(spare_chat: ChatVLLM) -> None:
    with pytest.raises(UsageError, match="prompt and a continuation"):
        spare_chat.score(PROMPT, [""])


def test_a_server_ranks_demonstrations_as_the_model_in_process_does(spare_chat: ChatVLLM) -> None:
    task = Task("colours", "classification", "Say the colour.", labels=("red", "blue"))
    examples = tuple(Demonstration("colours", f"lamp {n} of Tarn", task.labels[n % 2], ()) for n in range(12))
    pool = Pool(task, examples, np.zeros((12, 2), np.float32), 12)
    asked, given = [0, 1], list(range(2, 12))
    served = LikelihoodScorer(pool, spare_chat).utilities(asked, given)
    here = LikelihoodScorer(pool, CausalScorer(TINY)).utilities(asked, given)
    np.testing.assert_allclose(served, here, atol=0.1)
    assert np.corrcoef(served.ravel(), here.ravel())[0, 1] > 0.95


def test_a_server_reads_after_examples_as_the_model_in_process_does(
    spare_chat: ChatVLLM, tmp_path: Path
) -> None:
    task = Task("colours", "classification", "Say the colour.", labels=("red", "blue"))
    index = Index.create(tmp_path / "index", encoder="hashing:64", streams=())
    index.add_demonstrations(
        task, [Demonstration("colours", f"lamp {n} of Tarn", task.labels[n % 2]) for n in range(6)]
    )
    asked = ["lamp 1 of Tarn is lit", "a lamp"]
    served = ConditionedReader(index.retriever, task, spare_chat).predict(asked)
    here = ConditionedReader(index.retriever, task, CausalScorer(TINY)).predict(asked)
    for far, near in zip(served, here, strict=True):
        assert dict(far.probabilities) == pytest.approx(dict(near.probabilities), abs=0.05)
