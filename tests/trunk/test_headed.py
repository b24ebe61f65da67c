"""A trunk with a head for labelled examples: one encoder, whose other vectors are the trunk's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agentmtl.errors import EncoderError, EncoderMismatchError
from agentmtl.schema import Document
from agentmtl.trunk import load_encoder
from agentmtl.trunk.conformance import EncoderConformance
from agentmtl.trunk.encoder import Encoder, EncoderIdentity, describe_mismatch
from agentmtl.trunk.headed import ALL, SIDES, split_name
from agentmtl.trunk.heads import Head, load_head, save_head

from .tiny import embedding_head, random_head, tiny_trunk

TEXTS = ["a red coat", "", "x " * 300, "Ærø 東京"]
BACKEND = "torch-fp32"


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Of a trunk and of a head."""
    place = tmp_path_factory.mktemp("headed")
    files = tiny_trunk(place / "trunk")
    return str(place / "trunk"), str(embedding_head(files, place / "head"))


class TestConforms(EncoderConformance):
    @pytest.fixture(autouse=True)
    def _named(self, names: tuple[str, str]) -> None:
        self._spec = "+".join(names)

    def make(self) -> Encoder:
        return load_encoder(self._spec, backend=BACKEND)


def test_documents_and_questions_are_the_trunks_and_examples_the_heads(names: tuple[str, str]) -> None:
    trunk, both = load_encoder(names[0], backend=BACKEND), load_encoder("+".join(names), backend=BACKEND)
    for side in ("document", "query"):
        np.testing.assert_array_equal(both.encode(TEXTS, side), trunk.encode(TEXTS, side))  # type: ignore[arg-type]
    made = both.encode(TEXTS, "demonstration")
    assert made.shape == (4, 32) and np.allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)
    assert (np.einsum("nd,nd->n", made, trunk.encode(TEXTS)) < 0.99).all()
    np.testing.assert_allclose(both.encode(TEXTS[:1], "demonstration")[0], made[0], atol=1e-5)
    assert both.encode([], "demonstration").shape == (0, 32)


def test_the_identity_names_the_head(
    names: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trunk, both = load_encoder(names[0], backend=BACKEND), load_encoder("+".join(names), backend=BACKEND)
    assert both.identity.demonstrations and both.identity.instructs and not trunk.identity.instructs
    assert not both.identity.same_vectors(trunk.identity)
    assert "demonstrations" in describe_mismatch(trunk.identity, both.identity)
    assert "demonstrations" in describe_mismatch(both.identity, trunk.identity)
    assert both.identity.name == "+".join(names)
    monkeypatch.chdir(Path(names[1]).parent)
    assert load_encoder(f"{names[0]}+head", backend=BACKEND).identity == both.identity  # found from elsewhere
    assert EncoderIdentity.from_json(both.identity.to_json()) == both.identity
    assert "demonstrations" not in trunk.identity.to_json()  # as indexes before there were heads
    files = tiny_trunk(tmp_path / "same")
    plain = embedding_head(files, tmp_path / "plain", instruct=False)
    assert not load_encoder(f"{tmp_path / 'same'}+{plain}", backend=BACKEND).identity.instructs


def test_what_does_not_fit_is_refused(names: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="no head 'nothing'"):
        load_encoder(f"{names[0]}+nothing", backend=BACKEND)
    files = tiny_trunk(tmp_path / "other", seed=5)
    with pytest.raises(EncoderError, match="made for the trunk"):
        load_encoder(f"{tmp_path / 'other'}+{names[1]}", backend=BACKEND)
    save_head(random_head(files), tmp_path / "reader")
    with pytest.raises(EncoderError, match="has no output 'vector'"):
        load_encoder(f"{tmp_path / 'other'}+{tmp_path / 'reader'}", backend=BACKEND)


def test_a_folder_with_a_plus_in_its_name_is_a_trunk(tmp_path: Path) -> None:
    tiny_trunk(tmp_path / "a+b")
    assert split_name(str(tmp_path / "a+b")) is None
    assert load_encoder(str(tmp_path / "a+b"), backend=BACKEND).identity.dimension == 32


# --- heads that embed every text ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(names: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of the same head, whose card says that it embeds every text."""
    folder = tmp_path_factory.mktemp("whole") / "head"
    head = load_head(Path(names[1]))
    save_head(Head(replace(head.card, calibration={SIDES: ALL}), head.adapters, head.outputs), folder)
    return str(folder)


class TestWholeConforms(EncoderConformance):
    @pytest.fixture(autouse=True)
    def _named(self, names: tuple[str, str], whole: str) -> None:
        self._spec = f"{names[0]}+{whole}"

    def make(self) -> Encoder:
        return load_encoder(self._spec, backend=BACKEND)


def test_a_head_of_all_sides_is_another_encoder(names: tuple[str, str], whole: str) -> None:
    trunk, examples, every = (
        load_encoder(spec, backend=BACKEND) for spec in (names[0], "+".join(names), f"{names[0]}+{whole}")
    )
    made = every.encode(TEXTS, "document")
    for side in ("query", "demonstration"):
        np.testing.assert_array_equal(every.encode(TEXTS, side), made)  # type: ignore[arg-type]
    np.testing.assert_allclose(made, examples.encode(TEXTS, "demonstration"), atol=1e-6)
    assert not np.allclose(made, trunk.encode(TEXTS), atol=0.05)
    assert every.identity.texts and not every.identity.demonstrations and not every.identity.instructs
    for other in (trunk, examples):
        assert not every.identity.same_vectors(other.identity)
        assert "texts" in describe_mismatch(other.identity, every.identity)
    assert every.identity.weights == trunk.identity.weights  # heads that read text fit it as they did
    assert every.identity.max_length == 64
    assert EncoderIdentity.from_json(every.identity.to_json()) == every.identity
    assert "texts" not in examples.identity.to_json()


def test_an_index_of_one_is_not_searched_with_the_other(
    names: tuple[str, str], whole: str, tmp_path: Path
) -> None:
    from agentmtl.retrieval.index import Index
    from agentmtl.retrieval.query_tower import load_query_tower

    spec = f"{names[0]}+{whole}"
    index = Index.create(tmp_path / "ix", encoder=spec, backend=BACKEND, levels=("passage",), streams=())
    index.add([Document("a", "a red coat"), Document("b", "the sea at night")])
    again = Index.open(tmp_path / "ix", backend=BACKEND)
    assert again.encoder.identity == index.encoder.identity
    assert again.retrieve("the sea at night", k=1, channel="dense")[0].unit.source_id == "b"
    for other in (names[0], "+".join(names)):
        with pytest.raises(EncoderMismatchError, match="texts"):
            Index.open(tmp_path / "ix", encoder=other, backend=BACKEND)
    plain = Index.create(tmp_path / "of", encoder=names[0], backend=BACKEND, levels=("passage",), streams=())
    plain.add([Document("a", "a red coat")])
    with pytest.raises(EncoderMismatchError):
        Index.open(tmp_path / "of", encoder=spec, backend=BACKEND)
    with pytest.raises(EncoderError, match="not its trunk's"):
        load_query_tower(index.settings.encoder, Path(names[1]), BACKEND)
