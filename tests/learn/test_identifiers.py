"""The decoder that proposes identifiers: what it learns from, its scores, and its keys."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentmtl import Document, Index
from agentmtl.errors import EncoderError, UsageError
from agentmtl.evaluate.indexes import index_for
from agentmtl.index.identifiers import load_tokenizer, ngrams_of
from agentmtl.learn.identifier_examples import KeyExample, TargetSampler, read_key_examples
from agentmtl.learn.identifier_mining import frequencies_of, ranked_examples
from agentmtl.learn.identifier_ranking import (
    SHARPNESS,
    RankedExample,
    RankingTask,
    occurring,
    ranking_loss,
    unit_scores,
)
from agentmtl.learn.identifiers import KeysTask
from agentmtl.learn.identifiers_recipe import IdentifiersRecipe, prior_of, train_identifiers
from agentmtl.retrieval.fusion import AGAIN
from agentmtl.retrieval.identifiers.channel import Identifiers
from agentmtl.retrieval.identifiers.keys import Context, Key
from agentmtl.retrieval.identifiers.scoring import Scoring, key_weights, score_units
from agentmtl.retrieval.identifiers.teacher import Tokens, key_logps
from agentmtl.retrieval.identifiers.trained import TrainedKeys
from agentmtl.retrieval.retriever import Retriever
from agentmtl.trunk.decoder import ASKED, DecoderShape, padded
from agentmtl.trunk.decoder_files import KeyDecoder, fresh_decoder, read_card
from agentmtl.trunk.query_states import QueryStates

from ..trunk.tiny import tiny_trunk
from .worlds import reading_set

SMALL = DecoderShape(width=16, heads=2, layers=2, inner=16, longest=6)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(data folder, trunk's files, trained folder's parent)."""
    place = tmp_path_factory.mktemp("identifiers")
    trunk = tiny_trunk(place / "trunk")
    return place, reading_set(place / "bridges", 40), trunk


@pytest.fixture(scope="module")
def trained(world: Any) -> Path:
    place, data, files = world
    recipe = IdentifiersRecipe(width=16, epochs=1, batch=16, ranked=16)
    train_identifiers(files, [data], place / "made", recipe, place / "indexes", "made here")
    return Path(place / "made")


def _decoder(world: Any, prompts: str = "hybrid") -> tuple[Any, QueryStates]:
    reader = QueryStates(world[2])
    vocabulary = len(reader.words())
    shape = DecoderShape(**{**{n: getattr(SMALL, n) for n in SMALL.__slots__}, "prompts": prompts})
    prior = np.full(vocabulary + 4, -np.log(vocabulary), np.float32)
    return fresh_decoder(reader, prior, shape).eval(), reader


def _memory(module: Any, reader: QueryStates, *queries: str, level: str = "sentence") -> Any:
    import torch

    return module.remember(padded(reader.read(queries)), torch.tensor([ASKED.index(level)] * len(queries)))


# --- the decoder ------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompts", ["discrete", "soft", "hybrid"])
def test_a_key_is_as_likely_alone_as_among_others(world: Any, prompts: str) -> None:
    """Of queries of other lengths too, and as token by token over the whole vocabulary."""
    import torch

    module, reader = _decoder(world, prompts)
    keys: list[list[Tokens]] = [[(5,), (5, 7), (5, 7, 9), (8, 5)], [(7, 7, 7)]]
    with torch.inference_mode():
        both = key_logps(module, _memory(module, reader, "where is it", "who built the bridge of tarn"), keys)
        one = _memory(module, reader, "where is it")
        alone = [float(key_logps(module, one, [[key]])[0]) for key in keys[0]]
        hidden, past = module.begin(one)
        slow = float(module.scores(one, hidden)[0, 0, 5])
        hidden, past = module.step(one, torch.tensor([[5]]), past)
        slow += float(module.scores(one, hidden)[0, 0, 7])
    assert both[:4].tolist() == pytest.approx(alone, abs=1e-4)
    assert alone[1] == pytest.approx(slow, abs=1e-4)
    assert not np.allclose(both[2], both[4])


def test_an_untrained_decoder_says_what_the_query_says(world: Any) -> None:
    """Whatever the corpus: a token by its share of the query, and what follows it there by how often."""
    import torch

    module, reader = _decoder(world)
    with torch.no_grad():
        module.out.weight.zero_()
    query = "the bridge of the town of tarn"
    ids = reader.read([query])[0][1].tolist()
    the, bridge, of, _, town = ids[1:6]
    prior = torch.full((module.vocabulary + 4,), -5.0)
    read = padded(reader.read([query]))
    memory = module.remember(read, torch.tensor([ASKED.index("sentence")]), prior)
    keys = [(the,), (of,), (bridge,), (the, bridge), (the, town), (bridge, of), (bridge, town)]
    with torch.inference_mode():
        found = key_logps(module, memory, [keys]).tolist()
        hidden, past = module.begin(memory)
        hidden, _ = module.step(memory, torch.tensor([[the]]), past)
        every = module.scores(memory, hidden, torch.tensor([[the]]))[0, 0]
    n = len(ids)
    likely = [2 / n, 2 / n, 1 / n, 2 / n / 2, 2 / n / 2, 1 / n, np.exp(-5) / n]
    assert found == pytest.approx(np.log(likely).tolist(), abs=1e-3)
    assert float(every[bridge]) == pytest.approx(np.log(0.5), abs=1e-3)
    assert float(every[of]) == pytest.approx(-5.0, abs=1e-3)


def test_a_ranking_batch_is_of_one_set() -> None:
    """Counts are of its corpus."""
    sets = ["a"] * 5 + ["b"] * 7
    examples = [
        RankedExample(KeyExample(str(n), name, "", "", (), {}), (), (), (), frozenset())
        for n, name in enumerate(sets)
    ]
    task = RankingTask(examples, [], {}, {}, KeysTask([], [], {}, None), batch=4)  # type: ignore[arg-type]
    for epoch in range(3):
        batches = task.batches(epoch)
        assert batches and all(len({sets[n] for n in batch}) == 1 for batch in batches)


def test_the_ranking_loss_is_what_it_is_by_hand() -> None:
    import torch

    scores, gold = torch.tensor([2.0, 0.5, 1.0, -1.0]), [False, True, True, False]
    shares = np.exp(SHARPNESS * np.array([2.0, 0.5, 1.0, -1.0]))
    assert float(ranking_loss(scores, gold)) == pytest.approx(
        -np.log(shares[1:3].sum() / shares.sum()), abs=1e-5
    )
    assert float(ranking_loss(scores, gold, 0.5)) == pytest.approx((2.0 - 1.0 + 0.5) / 2)


def test_the_level_changes_what_is_said(world: Any) -> None:
    import torch

    for prompts in ("discrete", "soft", "hybrid"):
        module, reader = _decoder(world, prompts)
        with torch.inference_mode():
            said = [
                key_logps(module, _memory(module, reader, "who", level=level), [[(5,), (6,)]])
                for level in ASKED
            ]
        assert not torch.equal(said[0], said[2]), prompts


# --- what it learns from ----------------------------------------------------------------------------


def test_targets_are_spans_of_the_gold_unit_the_likelier_the_more_they_say_of_the_query(world: Any) -> None:
    _, data, files = world
    tokenizer = load_tokenizer(files.folder)
    _, examples = read_key_examples(data, tokenizer)
    assert len(examples) == 32 and all(e.golds[0].sentences for e in examples)
    sampler, example = TargetSampler(tokenizer, 3), examples[0]
    drawn = sampler.draw(example, "sentence", 50, 0)
    text = example.golds[0].sentences[0]
    spans = {text[at : at + 3] for at in range(len(text))}
    assert set(drawn) <= spans and len(set(drawn)) > 1
    assert drawn == TargetSampler(tokenizer, 3).draw(example, "sentence", 50, 0)
    starts, shares = sampler.importance(example.question, text)
    assert shares.sum() == pytest.approx(1) and shares.max() > 2 * shares.min()
    (title,) = sampler.draw(example, "entity", 5, 0)
    assert title[0] == tokenizer.title and title[1:3] == example.golds[0].title[:2]


def test_the_score_that_is_learned_is_the_score_of_the_index(world: Any) -> None:
    """Of every unit, whatever the keys' likelihoods."""
    import torch

    place, data, files = world
    tokenizer = load_tokenizer(files.folder)
    read, _ = read_key_examples(data, tokenizer)
    index = Index.create(place / "scored", encoder="hashing:16", streams=[files.folder])
    index.add(read.documents)
    ngrams = ngrams_of(index.snapshot)
    frequencies = frequencies_of(read, tokenizer)
    assert frequencies.tokens == ngrams.tokens
    units = [tuple(ngrams.unit_tokens("sentence", s, p).tolist()) for s, p in _sentences(index)]
    pairs = {pair for unit in units for pair in zip(unit, unit[1:], strict=False)}
    there = occurring([units], [pairs], frequencies)
    (keys,) = there.keys
    assert there.counts.tolist() == ngrams.counts(keys).tolist()
    logps = np.random.default_rng(0).uniform(-9, -0.5, len(keys))
    found = score_units(
        ngrams, [Key(k, float(v)) for k, v in zip(keys, logps, strict=True)], "sentence", Scoring()
    )
    by_address = {
        (int(s), int(p)): v for s, p, v in zip(found.segments, found.positions, found.scores, strict=True)
    }
    mine = unit_scores(torch.from_numpy(logps), there, len(units), frequencies.tokens, Scoring()).tolist()
    wanted = [by_address.get(address, 0.0) for address in _sentences(index)]
    assert max(wanted) > 0 and mine == pytest.approx(wanted)


def _sentences(index: Index) -> list[tuple[int, int]]:
    hits = index.retrieve("the bridge was opened", level="sentence", k=100)
    return sorted(hits.addresses)


def test_both_losses_fall(world: Any) -> None:
    import torch

    place, data, files = world
    tokenizer = load_tokenizer(files.folder)
    read, examples = read_key_examples(data, tokenizer)
    ranked = ranked_examples(read, examples, tokenizer, place / "indexes", files.identity.name)
    assert len(ranked) == 32 and all(any(r.gold) and not all(r.gold) for r in ranked)
    assert all(len(r.units) == len(r.gold) == len(r.offsets) for r in ranked)
    ranked = [replace(r, offsets=(0.0,) * len(r.units)) for r in ranked]  # else the others know all here
    frequencies = {read.name: frequencies_of(read, tokenizer)}
    reader = QueryStates(files)
    states = dict(
        zip([e.question for e in examples], reader.read([e.question for e in examples]), strict=True)
    )
    keys = KeysTask(examples, examples[:8], states, TargetSampler(tokenizer, 3), batch=16)
    loose = Scoring(smoothing=0.01)  # so few tokens leave no key with a weight otherwise
    ranking = RankingTask(ranked, ranked[:8], states, frequencies, keys, generation=0.0, settings=loose)
    module = fresh_decoder(reader, prior_of(list(frequencies.values())), SMALL)
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], 3e-3)
    for task in (ranking, keys):  # after keys the ranking is as good as it gets
        losses = []
        for epoch in range(16):
            loss = task.loss(module, task.batches(epoch)[0])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
        assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3]), task.name
        assert 0 < task.evaluate(module.eval())["score"] <= 1
        module.train()


def test_what_ranks_in_training_is_what_ranks_in_a_search(world: Any, trained: Path) -> None:
    """The first sentences of the fused search, each with the score that the decoder brings it to."""
    import torch

    place, data, files = world
    tokenizer, decoder = load_tokenizer(files.folder), KeyDecoder(trained, files)
    read, examples = read_key_examples(data, tokenizer)
    ranked = ranked_examples(read, examples, tokenizer, place / "indexes", files.identity.name)
    questions = [one.example.question for one in ranked]
    states = dict(zip(questions, QueryStates(files).read(questions), strict=True))
    loose = Scoring(smoothing=0.01)  # so few tokens leave no key with a weight otherwise
    keys = KeysTask([], [], states, TargetSampler(tokenizer, 3))
    frequencies = {read.name: frequencies_of(read, tokenizer)}
    task = RankingTask(ranked, ranked, states, frequencies, keys, settings=loose)
    index = index_for(read, place / "indexes", encoder=files.identity.name)
    index.add_stream(tokenizer)
    trained_keys = TrainedKeys(decoder, scoring=loose)
    settings = Identifiers((trained_keys,), loose, trained_keys.stream)
    retriever = Retriever(index.snapshot, index.encoder, None, settings)
    moved = 0
    with torch.inference_mode():
        for one in ranked[:12]:
            found = retriever.retrieve(one.example.question, level="sentence", k=AGAIN)
            (mine,) = task.fused(decoder.module, [one])
            assert sorted(mine.tolist(), reverse=True) == pytest.approx(list(found.scores), abs=1e-3)
            moved += list(np.argsort(-mine.numpy())) != list(range(len(mine)))
    assert moved


# --- its keys ---------------------------------------------------------------------------------------


def _index(world: Any, name: str) -> Index:
    place, _, files = world
    index = Index.create(place / name, encoder="hashing:16", streams=[files.folder])
    index.add(
        [
            Document("a", "The keeper lit the lamp of the bridge of Tarn.", title="Lamp"),
            Document("b", "A harbour was opened in 1820. The town is old.", title="Harbour of Voss"),
            Document("c", "The bridge of Molde number 7 was sold."),
            *(
                Document(f"f{n}", f"Nothing of the kind stands in note {n}, which is {n} words.")
                for n in range(150)
            ),
        ]
    )
    return index


@pytest.mark.parametrize("level", ["document", "passage", "sentence", "entity"])
def test_every_key_occurs_in_a_corpus_never_seen_and_a_deletion_takes_it_away(
    world: Any, trained: Path, level: Any
) -> None:
    index = _index(world, f"unseen-{level}")
    decoder = KeyDecoder(trained, world[2])
    beams = TrainedKeys(decoder, query=0, found=0, beams=6, longest=4)
    for query in ("When was the bridge of Molde sold?", "lamp", "zzz 東京"):
        ngrams = ngrams_of(index.snapshot)
        hits = index.retrieve(query, level=level, k=3)
        context = Context(level, hits.addresses, np.asarray(hits.scores, float).tolist())
        for keys in (
            beams.propose(query, ngrams, context),
            TrainedKeys(decoder).propose(query, ngrams, context),
        ):
            assert all(ngrams.count(key.tokens) >= 1 and key.logp <= 0 for key in keys)
            assert len({key.tokens for key in keys}) == len(keys)
            counts = ngrams.counts([key.tokens for key in keys])
            weights = key_weights(keys, counts, ngrams.tokens, Scoring()).tolist()
            assert weights == sorted(weights, reverse=True)
    said = {key.tokens for key in TrainedKeys(decoder, beams=0).propose("Molde", ngrams, Context(level))}
    index.delete(["c"])
    left = ngrams_of(index.snapshot)
    after = {key.tokens for key in TrainedKeys(decoder, beams=0).propose("Molde", left, Context(level))}
    assert all(left.count(key) for key in after) and after <= said


def test_it_ranks_in_the_channel_and_in_the_fusion(world: Any, trained: Path) -> None:
    index = _index(world, "ranked")
    settings = Identifiers((TrainedKeys(KeyDecoder(trained, world[2])),))
    retriever = Retriever(index.snapshot, index.encoder, None, settings)
    for channel in ("identifiers", "fused"):
        hits = retriever.retrieve("the bridge of Molde", level="sentence", channel=channel, k=3)
        assert len(hits) == 3
    assert set(hits.channels) == {"dense", "lexical", "identifiers", "proposed"}
    keys = hits[0].identifiers
    assert keys and all(key.count >= 1 for key in keys)
    assert len({(key.text, key.in_title) for key in keys}) == len(keys)
    assert [key.weight for key in keys] == sorted((key.weight for key in keys), reverse=True)


def test_a_run_of_other_data_or_trunk_is_refused(world: Any, trained: Path, tmp_path: Path) -> None:
    place, data, files = world
    card = read_card(trained)
    assert (
        card.command == "made here"
        and card.data["bridges"]["train"]
        and card.metrics["dev"]["ranking score"] > 0
    )
    with pytest.raises(UsageError, match="holds a run"):
        train_identifiers(
            files, [data], trained, IdentifiersRecipe(width=16, epochs=2, batch=16), place / "indexes"
        )
    other = tiny_trunk(tmp_path / "other", seed=5)
    with pytest.raises(EncoderError, match="was made for the trunk"):
        KeyDecoder(trained, other)
    with pytest.raises(EncoderError, match="cannot be read"):
        read_card(tmp_path)
    index = _index(world, "tokens")
    decoder = KeyDecoder(trained, files)
    decoder.card = replace(decoder.card, tokenizer="another")
    with pytest.raises(UsageError, match="speaks of other tokens"):
        TrainedKeys(decoder).propose("lamp", ngrams_of(index.snapshot), Context("passage"))


def test_a_decoder_read_again_says_the_same(world: Any, trained: Path) -> None:
    index = _index(world, "again")
    ngrams = ngrams_of(index.snapshot)
    first, second = (
        TrainedKeys(KeyDecoder(trained, world[2])).propose("the lamp", ngrams, Context("sentence"))
        for _ in range(2)
    )
    assert first == second
