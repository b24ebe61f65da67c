"""LangChain's own standard tests over our classes, and what they leave out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document as LangChainDocument
from langchain_core.embeddings import Embeddings
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from agentmtl.errors import EncoderMismatchError, UsageError
from agentmtl.integrations.chat_vllm import ChatVLLM
from agentmtl.integrations.retriever import AgentMTLRetriever
from agentmtl.integrations.vector_store import AgentMTLVectorStore
from agentmtl.retrieval.index import Index
from agentmtl.schema import Document


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> VectorStore:
        return AgentMTLVectorStore(tmp_path / "store", self.get_embeddings())


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    index = Index.create(tmp_path_factory.mktemp("retriever") / "ix", encoder="hashing:64", streams=())
    index.add(
        Document(f"r{n}", f"The bridge number {n} was opened in 18{n:02}.", f"Bridge {n}", {"year": 1800 + n})
        for n in range(8)
    )
    return index


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _given(self, index: Index) -> None:
        self._index = index

    @property
    def retriever_constructor(self) -> type[AgentMTLRetriever]:
        return AgentMTLRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"index": self._index, "k": 4}

    @property
    def retriever_query_example(self) -> str:
        return "When was bridge 3 opened?"


class TestChatVLLM(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatVLLM

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "tiny"}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return (
            {"VLLM_API_KEY": "key", "VLLM_BASE_URL": "http://127.0.0.1:9/v1"},
            {"model": "tiny"},
            {"api_key": "key", "base_url": "http://127.0.0.1:9/v1"},
        )


# --- what the standard leaves out -----------------------------------------------------------------------


def test_a_retriever_filters_and_cites_exact_places(index: Index) -> None:
    retriever = AgentMTLRetriever(index=index, k=3)
    found = retriever.invoke("bridge", where="year == 1802")
    assert [one.metadata["_source"] for one in found] == ["r2"]
    start, end = found[0].metadata["_span"]
    assert found[0].page_content == "The bridge number 2 was opened in 1802."[start:end]
    tool = retriever.as_search_tool()
    assert "1803" in tool.invoke({"query": "When was bridge 3 opened?"})


def test_a_store_keeps_nested_metadata_and_stays_on_disk(tmp_path: Path) -> None:
    embeddings = VectorStoreIntegrationTests.get_embeddings()
    store = AgentMTLVectorStore.from_texts(
        ["foo"],
        embeddings,
        [{"a": {"b": [1, {"c": None}]}, "tags": ["x", "y"]}],
        ids=["1"],
        folder=tmp_path / "ix",
    )
    again = AgentMTLVectorStore(tmp_path / "ix", embeddings)
    (found,) = again.get_by_ids(["1"])
    assert found.metadata == {"a": {"b": [1, {"c": None}]}, "tags": ["x", "y"]}
    assert again.similarity_search_with_score("foo", k=1)[0][1] == pytest.approx(1.0, abs=1e-5)
    assert again.similarity_search_by_vector(embeddings.embed_query("foo"), k=1) == [found]
    assert again.similarity_search_with_relevance_scores("foo", k=1)[0][1] == pytest.approx(1.0, abs=1e-5)
    assert store.as_retriever(search_kwargs={"k": 1}).invoke("foo") == [found]


def test_a_store_refuses_what_it_cannot_keep(tmp_path: Path) -> None:
    embeddings = VectorStoreIntegrationTests.get_embeddings()
    store = AgentMTLVectorStore(tmp_path / "ix", embeddings)
    with pytest.raises(UsageError, match="2 texts have 1"):
        store.add_texts(["a", "b"], [{}])
    with pytest.raises(UsageError, match="cannot be stored"):
        store.add_documents([LangChainDocument(page_content="a", metadata={"x": object()})])
    assert store.similarity_search("a", k=1) == []

    class Others(Embeddings):
        def embed_query(self, text: str) -> list[float]:
            return [1.0, 0.0, 0.0]

        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [self.embed_query(text) for text in texts]

    with pytest.raises(EncoderMismatchError):
        AgentMTLVectorStore(tmp_path / "ix", Others())
