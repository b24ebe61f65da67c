"""Retrieval measured end to end on a tiny set."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from agentmtl.errors import IngestError, UsageError
from agentmtl.evaluate import evaluate_multihop, index_for, read_multihop
from agentmtl.evaluate.multihop import measure, methods_of, rank_sources
from agentmtl.evaluate.report import Report, SetsReport
from agentmtl.retrieval.index import Index
from agentmtl.schema import Document
from agentmtl.trunk import HashingEncoder, Side, Vectors

from .conftest import CORPUS, WriteLines


class CountingEncoder(HashingEncoder):
    """Counts the texts it encodes, on either side, and the calls for queries."""

    def __init__(self) -> None:
        super().__init__(128)
        self.documents = 0
        self.query_calls = 0

    def encode(self, texts: Sequence[str], side: Side = "document") -> Vectors:
        if side == "document":
            self.documents += len(texts)
        else:
            self.query_calls += 1
        return super().encode(texts, side)


def _evaluate(data: Path, root: Path, **options: object) -> Report:
    options.setdefault("encoder", HashingEncoder(128))
    report = evaluate_multihop(data, index_root=root, **options)  # type: ignore[arg-type]
    assert isinstance(report, Report)
    return report


def test_each_channel_and_the_fusion_are_measured_with_intervals(multihop_set: Path, tmp_path: Path) -> None:
    report = _evaluate(multihop_set, tmp_path / "indexes")
    channels, hops = {"dense", "lexical", "fused"}, {"hops"}
    hops |= {f"hops − {part}" for part in ("graph", "beam", "facets", "identifiers")}
    assert set(report.methods) == channels | hops and report.default == "hops"
    wanted = {"recall@2", "recall@5", "recall@10", "all-gold@5", "mrr@10", "ndcg@10"}
    for metrics in report.methods.values():
        assert set(metrics) == wanted
        assert all(0 <= i.low <= i.mean <= i.high <= 1 for i in metrics.values())
    assert report.methods["fused"]["recall@10"].mean == 1  # six documents, all of them found
    assert {"hops - fused", "fused - dense", "fused - lexical"} <= set(report.differences)
    assert report.n == 3 and report.data == "towns"


def test_differences_are_those_of_the_means(multihop_set: Path, tmp_path: Path) -> None:
    report = _evaluate(multihop_set, tmp_path / "indexes")
    for other in ("dense", "lexical"):
        for metric, difference in report.differences[f"fused - {other}"].items():
            means = [report.methods[m][metric].mean for m in ("fused", other)]
            assert difference.mean == pytest.approx(means[0] - means[1])


def test_the_json_is_what_scripts_rely_on(multihop_set: Path, tmp_path: Path) -> None:
    report = _evaluate(multihop_set, tmp_path / "indexes", commands=["agentmtl eval multihop"])
    data = json.loads(json.dumps(report.to_json(), allow_nan=False))
    promised = {"schema", "benchmark", "data", "n", "seed", "methods", "default", "seconds", "commands"}
    assert promised <= data.keys() and data["schema"] == 1 and data["benchmark"] == "multihop"
    assert set(data["methods"]["fused"]["recall@5"]) == {"mean", "low", "high"}
    assert data["commands"] == ["agentmtl eval multihop"]
    assert data["details"]["sha256"] == read_multihop(multihop_set).sha256


def test_the_same_seed_gives_the_same_figures(multihop_set: Path, tmp_path: Path) -> None:
    first = _evaluate(multihop_set, tmp_path / "a", seed=5)
    second = _evaluate(multihop_set, tmp_path / "b", seed=5)
    assert (first.methods, first.differences) == (second.methods, second.differences)


def test_the_index_is_reused_and_questions_are_encoded_together(multihop_set: Path, tmp_path: Path) -> None:
    encoder = CountingEncoder()
    _evaluate(multihop_set, tmp_path / "indexes", encoder=encoder)
    encoded = encoder.documents
    assert encoded > 0 and encoder.query_calls == 1
    _evaluate(multihop_set, tmp_path / "indexes", encoder=encoder)
    assert (encoder.documents, encoder.query_calls) == (encoded, 2)
    assert len(list((tmp_path / "indexes").iterdir())) == 1


def test_other_data_settings_and_titles_get_an_index_of_their_own(
    multihop_set: Path, tmp_path: Path, write_lines: WriteLines
) -> None:
    root = tmp_path / "indexes"
    _evaluate(multihop_set, root)
    _evaluate(multihop_set, root, encoder=HashingEncoder(64))
    _evaluate(multihop_set, root, titles=False)
    write_lines(multihop_set / "corpus.jsonl", [*CORPUS, {"id": "d7", "title": "N", "text": "New."}])
    _evaluate(multihop_set, root)
    assert len(list(root.iterdir())) == 4


def test_an_index_with_every_level_serves_for_one(multihop_set: Path, tmp_path: Path) -> None:
    encoder = CountingEncoder()
    index = index_for(read_multihop(multihop_set), tmp_path / "indexes", encoder=encoder)
    encoded = encoder.documents
    report = _evaluate(multihop_set, tmp_path / "indexes", encoder=encoder)
    assert encoder.documents == encoded and report.details["index"] == str(index.folder)


def test_a_build_that_was_broken_off_is_completed(multihop_set: Path, tmp_path: Path) -> None:
    data, encoder = read_multihop(multihop_set), CountingEncoder()
    index = index_for(data, tmp_path / "indexes", encoder=encoder)
    index.delete(["d1", "d4"])
    again = index_for(data, tmp_path / "indexes", encoder=encoder)
    assert again.folder == index.folder and len(again.retrieve("Mira Holm", level="document", k=10)) == 6


def test_uneven_titles_are_left_out_unless_asked_for(
    multihop_set: Path, tmp_path: Path, write_lines: WriteLines
) -> None:
    write_lines(multihop_set / "corpus.jsonl", [*CORPUS, {"id": "d7", "title": "", "text": "New."}])
    report = _evaluate(multihop_set, tmp_path / "indexes")
    assert report.details["titles"] is False
    assert _evaluate(multihop_set, tmp_path / "indexes", titles=True).details["titles"] is True


def test_a_folder_of_sets_gives_each_and_the_mean(multihop_set: Path, tmp_path: Path) -> None:
    shutil.copytree(multihop_set, multihop_set.parent / "again")
    (multihop_set.parent / "other").mkdir()
    report = evaluate_multihop(
        multihop_set.parent, index_root=tmp_path / "indexes", encoder=HashingEncoder(128)
    )
    assert isinstance(report, SetsReport)
    data = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert [entry["data"] for entry in data["sets"]] == ["again", "towns"] and data["skipped"] == ["other"]
    assert {"schema", "sets", "macro"} <= data.keys()
    for method, metrics in data["macro"].items():
        for metric, interval in metrics.items():
            means = [entry["methods"][method][metric]["mean"] for entry in data["sets"]]
            assert interval["mean"] == pytest.approx(sum(means) / 2)
            assert interval["low"] <= interval["mean"] <= interval["high"]
    assert "mean over again, towns" in report.to_text()


def test_the_table_is_aligned_and_names_everything(multihop_set: Path, tmp_path: Path) -> None:
    text = _evaluate(multihop_set, tmp_path / "indexes").to_text()
    lines = text.splitlines()
    header = next(line for line in lines if line.startswith("metric"))
    row = next(line for line in lines if line.startswith("recall@5"))
    assert all(row[header.index(name) - 1] == " " != row[header.index(name)] for name in ("dense", "fused"))
    assert "fused - lexical" in text and "95% bootstrap" in text


def test_a_limit_takes_part_of_the_questions(multihop_set: Path, tmp_path: Path) -> None:
    assert _evaluate(multihop_set, tmp_path / "indexes", limit=2).n == 2


def test_units_are_fetched_until_enough_distinct_sources_and_whole_ties_are_there(tmp_path: Path) -> None:
    # 130 sentences of one source come first, then 30 sources that say the same
    many = Document("many", " ".join(f"Lighthouse keepers light lamp {n}." for n in range(130)))
    same = [Document(f"same{n}", "A lamp was lit in the harbour.") for n in range(30)]
    index = Index.create(tmp_path / "index", encoder=HashingEncoder(128))
    index.add([many, *same])
    vector = index.encoder.encode(["lighthouse keepers light lamp"], "query")[0]
    ranking = rank_sources(index, "lighthouse keepers light lamp", vector, "dense", "sentence", 3)
    assert ranking[0][0] == "many" and len(ranking) == 31
    assert len({score for _, score in ranking[1:]}) == 1


def test_a_source_stands_where_its_best_unit_stands(multihop_set: Path, tmp_path: Path) -> None:
    data = read_multihop(multihop_set)
    index = index_for(data, tmp_path / "indexes", encoder=HashingEncoder(128))
    vector = index.encoder.encode(["a lighthouse"], "query")[0]
    ranking = rank_sources(index, "a lighthouse", vector, "lexical", "sentence", 10)
    hits = index.retrieve("a lighthouse", level="sentence", k=50, channel="lexical")
    for source, score in ranking:
        assert score == pytest.approx(max(h.score for h in hits if h.unit.source_id == source))
    columns = measure(index, data.questions, methods_of(index, data, (1, 2)), ks=(1, 2))
    assert {len(c) for metrics in columns.values() for c in metrics.values()} == {3}


def test_bad_requests_say_what_to_do(
    multihop_set: Path, reading_set: Path, tmp_path: Path, write_lines: WriteLines
) -> None:
    with pytest.raises(UsageError, match="no evaluation set"):
        _evaluate(reading_set, tmp_path / "indexes")
    with pytest.raises(UsageError, match="entity"):
        _evaluate(multihop_set, tmp_path / "indexes", level="entity")
    with pytest.raises(UsageError):
        _evaluate(multihop_set, tmp_path / "indexes", ks=())
    write_lines(multihop_set / "questions.jsonl", [{"id": "q", "question": "?"}])
    with pytest.raises(IngestError, match="gold"):
        _evaluate(multihop_set, tmp_path / "indexes")


def test_titles_that_would_tell_the_gold_change_nothing(
    multihop_set: Path, tmp_path: Path, write_lines: WriteLines
) -> None:
    """Where only some documents have a title, blanking them all gives the same figures to the last digit."""
    uneven = [*CORPUS, {"id": "d7", "title": "", "text": "A harbour without any name."}]
    write_lines(multihop_set / "corpus.jsonl", uneven)
    titled = _evaluate(multihop_set, tmp_path / "titled")
    write_lines(multihop_set / "corpus.jsonl", [{**row, "title": ""} for row in uneven])
    blank = _evaluate(multihop_set, tmp_path / "blank")
    assert (titled.methods, titled.differences) == (blank.methods, blank.differences)
    shown = _evaluate(multihop_set, tmp_path / "blank", titles=True)
    assert shown.details["titles"] is True and shown.methods == blank.methods


def test_candidates_of_a_question_are_its_own_corpus(tmp_path: Path, write_lines: WriteLines) -> None:
    rows = [
        {"id": f"q{i}", "question": "Who kept the lamp?", "candidates": texts, "gold": [0], "answers": []}
        for i, texts in enumerate(
            [["Mira kept the lamp.", "Bread is baked."], ["Olaf kept the lamp.", "Rain."]]
        )
    ]
    (tmp_path / "set").mkdir()
    write_lines(tmp_path / "set" / "questions.jsonl", rows)
    report = _evaluate(tmp_path / "set", tmp_path / "indexes")
    assert report.n == 2 and report.methods["lexical"]["recall@2"].mean == 1
