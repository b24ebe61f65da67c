"""A causal model in this process as a judge of text: its scores are its own probabilities."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentmtl.errors import ModelError, UsageError
from agentmtl.experts.scoring import Scorer
from agentmtl.integrations.causal import CausalScorer
from agentmtl.learn.demonstrations_recipe import DemonstrationsRecipe, train_demonstrations

from ..learn.test_demonstrations import task_folder
from ..trunk.tiny import tiny_trunk

TINY = Path(__file__).parents[1] / "serving" / "tiny"
PROMPT = "The lighthouse of Tarn was built by"


@pytest.fixture(scope="module")
def model() -> CausalScorer:
    return CausalScorer(TINY)


def test_a_score_sums_the_models_log_probabilities(model: CausalScorer) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert isinstance(model, Scorer)
    tokenizer = AutoTokenizer.from_pretrained(str(TINY))
    network = AutoModelForCausalLM.from_pretrained(str(TINY)).eval()
    for said in (" Mira Holm.", " the sea, which nobody expected"):
        ids = tokenizer(PROMPT + said)["input_ids"]
        alone = tokenizer(PROMPT)["input_ids"]
        first = next(n for n in range(len(ids)) if ids[: n + 1] != alone[: n + 1])
        with torch.inference_mode():
            chances = torch.log_softmax(network(torch.tensor([ids])).logits[0].float(), -1)
        wanted = sum(float(chances[at - 1, ids[at]]) for at in range(first, len(ids)))
        (score,) = model.score(PROMPT, [said])
        assert score.tokens == len(ids) - first and score.logprob == pytest.approx(wanted, abs=1e-3)


def test_pairs_are_scored_together_as_they_are_alone(model: CausalScorer) -> None:
    pairs = [(f"Question {n}{' more' * (n % 5)}?", f" Answer {n % 7}.") for n in range(40)]
    together = model.score_pairs(pairs)
    for at in (0, 13, 39):
        (alone,) = model.score(pairs[at][0], [pairs[at][1]])
        assert alone.logprob == pytest.approx(together[at].logprob, abs=1e-3)


def test_what_cannot_be_scored_is_refused(model: CausalScorer, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="prompt and a continuation"):
        model.score(PROMPT, [""])
    with pytest.raises(UsageError, match="does not fit"):
        model.score("word " * 20_000, [" x"])
    with pytest.raises(ModelError, match="cannot be loaded"):
        CausalScorer(tmp_path)


def test_the_retriever_of_demonstrations_learns_from_it(model: CausalScorer, tmp_path: Path) -> None:
    folders = [task_folder(tmp_path, "colors", "classification"), task_folder(tmp_path, "said", "generation")]
    recipe = DemonstrationsRecipe(rank=2, rounds=1, queries=8, asked=8, shown=16, max_length=24, limit=30)
    head = train_demonstrations(tiny_trunk(tmp_path / "trunk"), folders, tmp_path / "out", recipe, model)
    assert set(head.card.metrics["dev"]) == {"colors", "said", "score"}
