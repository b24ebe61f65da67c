"""Real Hugging Face models, tiny and untrained, decode under the corpus's constraint."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agentmtl import Document, Index
from agentmtl.errors import UsageError
from agentmtl.index.identifiers import Ngrams, ngrams_of
from agentmtl.integrations.vllm_identifiers import INDEX_VARIABLE, IdentifierLogitsProcessor
from agentmtl.retrieval.identifiers.constraint import CorpusConstraint, prefix_allowed_tokens
from agentmtl.retrieval.identifiers.decoding import LanguageModelKeys, load_soft_prompt, save_soft_prompt
from agentmtl.retrieval.identifiers.keys import Context

STOP = 0


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """An index with a byte-level stream, whose tokeniser is in `folder/model`."""
    from tokenizers import ByteLevelBPETokenizer

    folder = tmp_path_factory.mktemp("decoding")
    texts = [
        "The keeper lit the lamp at Far Point.",
        "A lamp of brass hung in the harbour.",
        "Far Point is old.",
    ]
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(texts, vocab_size=300, special_tokens=["</s>"], show_progress=False)
    (folder / "model").mkdir()
    trained.save(str(folder / "model" / "tokenizer.json"))
    index = Index.create(folder / "index", encoder="hashing:16", streams=[folder / "model"])
    index.add(Document(f"d{i}", t, title="Far Point" if i == 2 else "") for i, t in enumerate(texts))
    return index


@pytest.fixture(scope="module")
def tokenizer(corpus: Index) -> Any:
    from transformers import PreTrainedTokenizerFast

    path = corpus.folder.parent / "model" / "tokenizer.json"
    return PreTrainedTokenizerFast(tokenizer_file=str(path), eos_token="</s>")


def _model(kind: str, vocabulary: int) -> Any:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    if kind == "gpt2":
        size = {"n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": 128}
        return GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, eos_token_id=STOP, **size)).eval()
    size = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    config = T5Config(vocab_size=vocabulary, eos_token_id=STOP, decoder_start_token_id=1, **size)
    return T5ForConditionalGeneration(config).eval()


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_every_key_occurs_and_every_prefix_of_every_beam_is_kept(
    corpus: Index, tokenizer: Any, kind: str
) -> None:
    import torch

    ngrams = ngrams_of(corpus.snapshot)
    model = _model(kind, ngrams.tokenizer.vocabulary)
    plain = LanguageModelKeys(model, tokenizer, beams=4, longest=4)
    keys = plain.propose("Who lit the lamp?", ngrams, Context("passage"))
    assert keys and all(ngrams.count(key.tokens) >= 1 and key.logp <= 0 for key in keys)
    found = {key.tokens for key in keys}
    longest = max((t for t in found if t[0] != ngrams.tokenizer.title), key=len)
    assert len(longest) == 4 and sum(longest[:n] in found for n in (2, 3)) >= 1
    assert any(t[0] == ngrams.tokenizer.title for t in found)
    soft = LanguageModelKeys(model, tokenizer, soft_prompt=torch.randn(3, 16), beams=4, longest=4)
    prompted = soft.propose("Who lit the lamp?", ngrams, Context("passage"))
    assert prompted != keys and all(ngrams.count(key.tokens) for key in prompted)


def test_generate_itself_stays_in_the_corpus(corpus: Index, tokenizer: Any) -> None:
    ngrams = ngrams_of(corpus.snapshot)
    model = _model("gpt2", ngrams.tokenizer.vocabulary)
    ids = tokenizer("Who lit the lamp?", return_tensors="pt").input_ids
    allowed = prefix_allowed_tokens(CorpusConstraint(ngrams, STOP, 5), ids.shape[1])
    made = model.generate(
        ids, num_beams=3, num_return_sequences=3, max_new_tokens=6, do_sample=False,
        prefix_allowed_tokens_fn=allowed, pad_token_id=STOP,
    )  # fmt: skip
    for row in made[:, ids.shape[1] :].tolist():
        key = row[: row.index(STOP)] if STOP in row else row
        assert key and ngrams.count(key) >= 1


def test_the_logp_of_a_key_is_that_of_a_teacher_forced_pass(corpus: Index, tokenizer: Any) -> None:
    import torch

    ngrams = ngrams_of(corpus.snapshot)
    model = _model("gpt2", ngrams.tokenizer.vocabulary)
    proposer = LanguageModelKeys(model, tokenizer, prompt="{query}", beams=3, longest=3, titles=False)
    ids = tokenizer("lamp", return_tensors="pt", add_special_tokens=False).input_ids
    for key in proposer.propose("lamp", ngrams, Context("passage")):
        whole = torch.cat([ids, torch.tensor([list(key.tokens)])], dim=1)
        with torch.no_grad():
            scores = torch.log_softmax(model(whole).logits[0], dim=-1)
        wanted = sum(scores[ids.shape[1] - 1 + i, t].item() for i, t in enumerate(key.tokens))
        assert key.logp == pytest.approx(wanted, abs=1e-4)


def test_soft_prompts_are_kept_in_files(tmp_path: Path) -> None:
    import torch

    prompt = torch.randn(4, 8)
    save_soft_prompt(prompt, tmp_path / "prompt.safetensors")
    assert torch.equal(load_soft_prompt(tmp_path / "prompt.safetensors"), prompt)
    (tmp_path / "other").write_bytes(b"nothing")
    with pytest.raises(UsageError):
        load_soft_prompt(tmp_path / "other")


def test_the_batch_processor_constrains_its_own_rows_through_moves(
    corpus: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    ngrams = ngrams_of(corpus.snapshot)
    monkeypatch.setenv(INDEX_VARIABLE, str(corpus.folder))
    model = SimpleNamespace(
        tokenizer=str(corpus.folder.parent / "model"), hf_config=SimpleNamespace(eos_token_id=STOP)
    )
    processor = IdentifierLogitsProcessor(SimpleNamespace(model_config=model), "cpu", False)
    assert not processor.is_argmax_invariant()
    asks, plain = SimpleNamespace(extra_args={"identifiers": True}), SimpleNamespace(extra_args=None)
    output: list[int] = []
    processor.update_state(_update(added=[(0, plain, [], []), (1, asks, [5], output)]))
    _steps(processor, ngrams, output, row=1)
    swap = SimpleNamespace(name="SWAP")
    processor.update_state(_update(moved=[(1, 0, swap)]))
    _steps(processor, ngrams, output, row=0)
    processor.update_state(_update(removed=[0]))
    free = torch.zeros(2, ngrams.tokenizer.vocabulary)
    assert torch.equal(processor.apply(free.clone()), free)
    with pytest.raises(ValueError, match="longest"):
        processor.validate_params(SimpleNamespace(extra_args={"longest": 10_000}))


def _steps(processor: IdentifierLogitsProcessor, ngrams: Ngrams, output: list[int], row: int) -> None:
    import torch

    for _ in range(2):
        logits = processor.apply(torch.zeros(2, ngrams.tokenizer.vocabulary))
        assert torch.isfinite(logits[1 - row]).all()
        allowed = torch.isfinite(logits[row]).nonzero().flatten().tolist()
        kept = [t for t in allowed if t != STOP]
        assert (kept or output) and all(ngrams.count([*output, t]) >= 1 for t in kept)
        output += kept[:1]


def _update(**changes: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"removed": [], "added": [], "moved": [], **changes})


def _served(corpus: Index, monkeypatch: pytest.MonkeyPatch, **model: Any) -> SimpleNamespace:
    """What vLLM gives a processor as its configuration."""
    monkeypatch.setenv(INDEX_VARIABLE, str(corpus.folder))
    given = {
        "tokenizer": str(corpus.folder.parent / "model"), "hf_config": SimpleNamespace(eos_token_id=STOP),
    }  # fmt: skip
    return SimpleNamespace(model_config=SimpleNamespace(**{**given, **model}))


def test_a_corpus_that_fails_ends_a_key_and_not_the_engine(
    corpus: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    processor = IdentifierLogitsProcessor(_served(corpus, monkeypatch), "cpu", False)
    asks = SimpleNamespace(extra_args={"identifiers": 1}, eos_token_id=7)  # as HTTP hands a boolean over
    processor.update_state(_update(added=[(0, asks, [], [])]))
    monkeypatch.setattr(Ngrams, "next_tokens", lambda self, prefix: 1 / 0)
    logits = torch.zeros(1, 50)
    logits[0, 7] = float("-inf")  # another processor had forbidden what alone is left
    kept = torch.isfinite(processor.apply(logits)[0]).nonzero().flatten().tolist()
    assert kept == [7]  # the request's own end token


REFUSED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"identifiers": "yes"}, {}),
    ({"identifiers": True, "titles": 3}, {}),
    ({"identifiers": True, "longest": True}, {}),
    ({"identifiers": True, "longest": 2.5}, {}),
    ({"longest": 4}, {}),
    ({"identifiers": False, "titles": True}, {}),
    ({"identifiers": True}, {"structured_outputs": object()}),
    ({"identifiers": True}, {"min_tokens": 3}),
]


@pytest.mark.parametrize(("arguments", "other"), REFUSED)
def test_requests_that_cannot_be_served_are_refused(arguments: dict[str, Any], other: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="identifiers|longest|titles"):
        IdentifierLogitsProcessor.validate_params(SimpleNamespace(extra_args=arguments, **other))
    IdentifierLogitsProcessor.validate_params(SimpleNamespace(extra_args={"session_id": "a"}, **other))


def test_the_model_may_be_one_of_hugging_faces_cache(
    corpus: Index, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import shutil

    import huggingface_hub.constants

    place = tmp_path / "models--me--mine"
    (place / "snapshots" / "r1").mkdir(parents=True)
    shutil.copy(corpus.folder.parent / "model" / "tokenizer.json", place / "snapshots" / "r1")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("r1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    found = IdentifierLogitsProcessor(_served(corpus, monkeypatch, tokenizer="me/mine"), "cpu", False)
    assert found._corpus._ngrams.tokenizer.identity == ngrams_of(corpus.snapshot).tokenizer.identity


def test_a_model_needs_an_end_token_and_the_server_an_index(
    corpus: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = _served(corpus, monkeypatch, hf_config=SimpleNamespace(eos_token_id=[STOP, 5]))
    assert IdentifierLogitsProcessor(several, "cpu", False)
    none = _served(corpus, monkeypatch, hf_config=SimpleNamespace(eos_token_id=None))
    with pytest.raises(UsageError, match="no end token"):
        IdentifierLogitsProcessor(none, "cpu", False)
    monkeypatch.delenv(INDEX_VARIABLE)
    with pytest.raises(UsageError, match="Which index"):
        IdentifierLogitsProcessor(several, SimpleNamespace())
