"""The committed tiny model: its files are the measured ones, small, made as the card says, and of use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.serving.tiny_model import release
from tests.serving.tiny_model.recipe import ADAPTER, SHAPE, as_json


def test_the_files_are_those_of_the_hashes() -> None:
    """After a training: `python -m tests.serving.tiny_model release`."""
    assert release.SUMS.read_text("utf-8") == release.sums()


def test_they_are_small_enough_for_a_repository() -> None:
    assert sum(path.stat().st_size for path in release.files()) <= release.LIMIT


def test_the_card_tells_how_they_were_made() -> None:
    assert release.card_recipe() == json.loads(json.dumps(as_json()))


def test_the_network_has_the_shape_of_the_recipe() -> None:
    config = json.loads((release.BASE / "config.json").read_text("utf-8"))
    found = [
        config[name] for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
    ]
    assert found == [SHAPE.vocabulary, SHAPE.hidden, SHAPE.layers, SHAPE.heads]


@pytest.mark.parametrize("folder", sorted(release.ADAPTER_FOLDER.iterdir()), ids=lambda path: path.name)
def test_an_adapter_fits_a_server_of_rank_eight(folder: Path) -> None:
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    assert config["r"] == ADAPTER.rank <= 8
    assert config["peft_type"] == "LORA"
    assert config["modules_to_save"] is None


def test_prompts_are_encoded_in_training_as_the_chat_template_does() -> None:
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    from tests.serving.tiny_model.batches import Encoder
    from tests.serving.tiny_model.measuring import held_out

    encoder = Encoder(Tokenizer.from_file(str(release.BASE / "tokenizer.json")))
    tokenizer = AutoTokenizer.from_pretrained(release.BASE)
    for kind in ("answer", "route", "repair"):
        example = held_out(kind, 1, 3)[0]
        prompt = tokenizer.apply_chat_template(
            list(example.messages), add_generation_prompt=True, tokenize=False
        )
        ids = encoder(example).ids
        sent = tokenizer(prompt)["input_ids"]
        assert ids[: len(sent)] == sent


def test_the_base_answers_from_documents_that_it_has_never_seen() -> None:
    from tests.serving.tiny_model.measuring import Served, held_out

    made = held_out("answer", 30, 2, seed=7)
    replies = Served(release.BASE)([example.messages for example in made])
    right = sum(reply == example.target for reply, example in zip(replies, made, strict=True))
    assert right >= 20
