"""Segmentation metrics, MultiHop-RAG's official figures, IR figures: by hand and against libraries."""

from __future__ import annotations

import json
from pathlib import Path

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.metrics.segmentation import pk as nltk_pk
from nltk.metrics.segmentation import windowdiff as nltk_windowdiff

from agentmtl import Document, Index
from agentmtl.errors import IngestError, UsageError
from agentmtl.evaluate.chunking import evaluate_chunking
from agentmtl.evaluate.demonstrations import evaluate_demonstrations, macro_f1
from agentmtl.evaluate.identifiers import evaluate_identifiers
from agentmtl.evaluate.ir import evaluate_ir
from agentmtl.evaluate.metrics import mrr_at, ndcg_at
from agentmtl.evaluate.multihop_rag import evaluate_multihop_rag, official
from agentmtl.evaluate.report import Report
from agentmtl.evaluate.segmentation import evaluate_segmentation
from agentmtl.evaluate.segmentation_metrics import half_segment, pk, windowdiff
from agentmtl.retrieval.facets import dates_in, dictionary_of, facets_of, sources_in, spellings
from agentmtl.trunk import HashingEncoder

from .conftest import WriteLines


@settings(max_examples=80, deadline=None)
@given(data=st.data(), n=st.integers(6, 30), k=st.integers(1, 5))
def test_pk_and_windowdiff_are_nltks(data: st.DataObject, n: int, k: int) -> None:
    marks = st.lists(st.integers(1, n - 1), unique=True, max_size=6)
    reference, hypothesis = sorted(data.draw(marks)), sorted(data.draw(marks))

    def spelt(boundaries: list[int]) -> str:  # NLTK marks the sentence before a boundary
        return "".join("1" if i + 1 in boundaries else "0" for i in range(n))

    ours = windowdiff(reference, hypothesis, n, k)
    # NLTK's windows are k wide and end one earlier: n − k + 1 of them over k marks
    theirs = nltk_windowdiff(spelt(reference)[: n - 1], spelt(hypothesis)[: n - 1], k)
    assert ours == pytest.approx(theirs)
    assert pk(reference, hypothesis, n, k) == pytest.approx(
        nltk_pk(spelt(reference)[: n - 1], spelt(hypothesis)[: n - 1], k)
    )


def test_segmentation_metrics_by_hand() -> None:
    assert half_segment([4, 8], 12) == 2 and pk([4], [4], 8, 2) == windowdiff([4], [4], 8, 2) == 0
    assert pk([4], [], 8, 2) == pytest.approx(2 / 6) and windowdiff([4], [4, 5], 8, 2) == pytest.approx(2 / 6)


def test_a_segmentation_set_is_measured_beside_texttiling(tmp_path: Path, write_lines: WriteLines) -> None:
    words = [["ship", "sail", "storm", "harbour"], ["bread", "flour", "dough", "oven"]]
    sentences = [f"The {w} and the {v} were there." for topic in words for w in topic for v in topic[:2]]
    rows = [{"id": f"d{i}", "group": "g", "sentences": sentences, "boundaries": [8]} for i in range(3)]
    write_lines(tmp_path / "documents.jsonl", rows)
    report = evaluate_segmentation(tmp_path, encoder=HashingEncoder(128))
    assert set(report.methods) == {"topics", "likeness", "texttiling", "even", "none"} and report.n == 3
    assert report.methods["even"]["pk"].mean == 0 and report.methods["none"]["pk"].mean > 0


@pytest.mark.parametrize(("facts", "wanted"), [(2, 0.75), (3, 0.611), (4, 0.521)])
def test_the_official_map_of_a_perfect_ranking(facts: int, wanted: float) -> None:
    found = official([{i} for i in range(facts)], facts)
    assert found["official-map@10"] == pytest.approx(wanted, abs=5e-4)
    assert found["official-mrr@10"] == found["official-hits@4"] == found["official-hits@10"] == 1


def test_official_figures_by_hand() -> None:
    found = official([set(), {0}, {0}, set(), {1}], 3)
    assert found["official-mrr@10"] == 0.5 and found["official-map@10"] == pytest.approx((1 / 2 + 1 / 5) / 3)
    assert official([set()] * 10, 2)["official-hits@10"] == 0


def _news(folder: Path) -> None:
    corpus = [
        {"title": f"Report {i}", "author": "A", "source": source, "category": "tech", "url": f"u{i}",
         "published_at": f"2023-0{i + 1}-05T10:00:00+00:00",
         "body": f"{firm} opened an office in {town}. The office of {firm} has {i + 3} rooms."}
        for i, (source, firm, town) in enumerate(
            [("TechCrunch", "Nord", "Oslo"), ("The Verge", "Nord", "Bergen"), ("Wired", "Havn", "Molde")]
        )
    ]  # fmt: skip
    evidence = [
        {**{k: c[k] for k in ("title", "url", "source")}, "fact": c["body"].split(". ")[0] + "."}
        for c in corpus
    ]
    queries = [
        {"query": "Which city do TechCrunch and The Verge name for Nord?", "answer": "no",
         "question_type": "comparison_query", "evidence_list": evidence[:2]},
        {"query": "What does Wired say of Havn?", "answer": "Molde", "question_type": "inference_query",
         "evidence_list": evidence[2:]},
        {"query": "What did the Moon Post say of Glim?", "answer": "Insufficient information.",
         "question_type": "null_query", "evidence_list": []},
    ]  # fmt: skip
    (folder / "corpus.json").write_text(json.dumps(corpus))
    (folder / "MultiHopRAG.json").write_text(json.dumps(queries))


def test_multihop_rag_in_its_official_form(tmp_path: Path) -> None:
    _news(tmp_path)
    report = evaluate_multihop_rag(tmp_path, index_root=tmp_path / "ix", encoder=HashingEncoder(128))
    assert report.n == 2 and report.details["null queries"] == 1
    refusals = report.details["abstention"]
    assert {"auroc", "f1"} <= refusals["best cosine"].keys() and len(refusals) == 2
    covered = report.methods["fused + coverage"]
    assert covered["evidence-recall@10"].mean == 1 and covered["doc-recall@10"].mean == 1
    assert "official-map@10" in covered and covered["official-map@10"].mean < 1.01
    (tmp_path / "corpus.json").write_text("[]")
    with pytest.raises(IngestError):
        evaluate_multihop_rag(tmp_path, index_root=tmp_path / "ix", encoder=HashingEncoder(128))
    with pytest.raises(UsageError, match="corpus.json"):
        evaluate_multihop_rag(tmp_path / "nowhere", index_root=tmp_path / "ix")


def test_sources_and_dates_become_filters(tmp_path: Path) -> None:
    known = spellings(["The Verge", "TechCrunch", "Hacker News | Daily", "Cnbc"])
    assert sources_in("What do The Verge and TechCrunch say?", known) == ["TechCrunch", "The Verge"]
    assert sources_in("on the verge of a techcrunch", known) == []
    assert sources_in("as 'Hacker News' said", known) == ["Hacker News | Daily"]
    assert dates_in("on May 3, 2023 and 2023-07-01, not in May") == ["2023-05-03", "2023-07-01"]
    index = Index.create(tmp_path / "index", encoder=HashingEncoder(64))
    index.add(
        [Document("a", "One text.", metadata={"source": 'A "b"', "published_at": "2023-05-03T01:00:00"})]
    )
    facets = facets_of('What did A "b" print on May 3, 2023?', dictionary_of(index.snapshot))
    assert [f.kind for f in facets] == ["source", "date"]
    assert all(len(index.retrieve("text", where=f.where)) == 1 for f in facets)


@settings(max_examples=40, deadline=None)
@given(
    scores=st.lists(st.integers(0, 99), min_size=3, max_size=12, unique=True),
    gold=st.sets(st.integers(0, 11), min_size=1),
)
def test_our_ranking_metrics_are_those_of_ir_measures(scores: list[int], gold: set[int]) -> None:
    run = {"q": {str(i): float(s) for i, s in enumerate(scores)}}
    grades = {"q": {str(g): 1 for g in gold}}
    ranking = sorted(run["q"].items(), key=lambda pair: -pair[1])
    measures = [ir_measures.nDCG @ 10, ir_measures.RR @ 10]
    theirs = {str(m.measure): m.value for m in ir_measures.iter_calc(measures, grades, run)}
    assert ndcg_at(ranking, set(grades["q"]), 10) == pytest.approx(theirs["nDCG@10"])
    assert mrr_at(ranking, set(grades["q"]), 10) == pytest.approx(theirs["RR@10"])


def test_a_judged_collection(tmp_path: Path, write_lines: WriteLines) -> None:
    write_lines(
        tmp_path / "corpus.jsonl", [{"id": str(i), "text": f"Wing {w} flow."} for i, w in enumerate("abc")]
    )
    write_lines(tmp_path / "queries.jsonl", [{"id": "1", "text": "wing b"}, {"id": "2", "text": "wing c"}])
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n1\t1\t1\n2\t2\t1\n")
    report = evaluate_ir(tmp_path, index_root=tmp_path / "ix", encoder=HashingEncoder(128))
    assert report.n == 2 and report.methods["lexical"]["map"].mean == 1
    assert {"dense", "lexical", "fused", "bm25s"} == set(report.methods)


def test_demonstrations_identifiers_and_chunking_run_end_to_end(
    tmp_path: Path, write_lines: WriteLines, multihop_set: Path
) -> None:
    task = tmp_path / "tasks" / "kinds"
    task.mkdir(parents=True)
    (task / "card.json").write_text(
        json.dumps({"name": "kinds", "kind": "classification", "labels": ["x", "y"]})
    )
    rows = [
        {"input": f"{w} number {i}", "output": o}
        for i in range(12)
        for w, o in (("ship", "x"), ("bread", "y"))
    ]
    write_lines(task / "train.jsonl", rows)
    write_lines(
        task / "test.jsonl",
        [{"input": "a ship at sea", "output": "x"}, {"input": "new bread", "output": "y"}],
    )
    plot = tmp_path / "k.png"
    report = evaluate_demonstrations(
        task, index_root=tmp_path / "ix", encoder=HashingEncoder(128), ks=(1, 8), plot=plot
    )
    assert isinstance(report, Report) and report.methods["lexical"]["accuracy"].mean == 1
    assert plot.read_bytes()[:4] == b"\x89PNG"
    found = evaluate_identifiers(multihop_set, index_root=tmp_path / "ix", encoder=HashingEncoder(128))
    assert isinstance(found, Report)
    assert {"sentence: dense+lexical+identifiers", "passage: identifiers"} <= set(found.methods)
    text = "Ada wrote the first program. It was long. " * 3
    write_lines(
        tmp_path / "test.jsonl",
        [{"id": "1", "title": "Ada", "context": text, "question": "Who wrote it?", "answerable": True,
          "answers": [{"text": "Ada", "start": 0}]}],
    )  # fmt: skip
    chunks = evaluate_chunking(tmp_path, index_root=tmp_path / "cx", encoder=HashingEncoder(128))
    assert chunks.methods["sentences"]["evidence-recall@1024"].mean == 1


def test_macro_f1_by_hand() -> None:
    assert macro_f1(["a", "a", "b"], ["a", "b", "b"]).value == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert np.isfinite(macro_f1(["c"], ["a"]).value)
