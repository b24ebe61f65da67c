"""Heads: what is saved is what runs, on every backend; another trunk's head is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import agentmtl.trunk.heads
from agentmtl.errors import EncoderError
from agentmtl.experts.reading import KIND, SPAN, readings_of
from agentmtl.trunk.head_network import HeadNetwork, batches
from agentmtl.trunk.heads import CARD, TENSORS, Head, load_head, save_head, shipped_head
from agentmtl.trunk.model_files import ModelFiles
from agentmtl.trunk.pairs import PairCutter, Window
from agentmtl.trunk.transformer import Backend

from .default_model import needs_openvino
from .tiny import random_head, tiny_trunk

PASSAGE = "The H4 was built by John Harrison, a clockmaker of Yorkshire, and finished in 1759. "
PAIRS = (
    ("Who built it?", PASSAGE),
    ("When?", PASSAGE * 6),
    ("", ""),
    ("Ærø?", "東京 – Ελλάδα 1,234.5 \ud800"),
)


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return tiny_trunk(tmp_path_factory.mktemp("trunk") / "tiny")


@pytest.fixture(scope="module")
def head(trunk: ModelFiles) -> Head:
    return random_head(trunk)


@pytest.fixture(scope="module")
def folder(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("head")
    save_head(head, place)
    return place


def network(folder: Path, trunk: ModelFiles, *backends: Backend) -> HeadNetwork:
    return HeadNetwork(folder, trunk, backends or ("torch-fp32",), trunk.folder / "cache")


def logits(network: HeadNetwork, pairs: Sequence[tuple[str, str]] = PAIRS) -> np.ndarray:
    windows = network.cutter.windows([q for q, _ in pairs], [p for _, p in pairs])
    found = network.run(windows)
    assert [len(f[SPAN]) for f in found] == [len(w.ids) for w in windows]
    return np.concatenate([np.concatenate([f[SPAN].ravel(), f[KIND].ravel()]) for f in found])


def test_a_head_comes_back_as_it_was_but_for_half_precision(head: Head, folder: Path) -> None:
    again = load_head(folder)
    assert again.card == replace(head.card, outputs=dict(head.card.outputs))
    for name, (a, b) in head.adapters.items():
        np.testing.assert_allclose(again.adapters[name][0], a, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(again.adapters[name][1], b, rtol=1e-3, atol=1e-4)
    assert len(again.adapters) == 2 * 6


def test_merging_changes_no_answer(trunk: ModelFiles, head: Head, folder: Path) -> None:
    """The trained module, adapters beside the weights, against the one that runs, adapters in the weights."""
    import torch

    from agentmtl.experts.reading import OUTPUTS
    from agentmtl.trunk.head_module import trainable_module

    module = trainable_module(trunk, OUTPUTS, head.card.rank, head.card.scale, 0.0, 0)
    saved = load_head(folder)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            for part, mark in enumerate((".lora_A.default.weight", ".lora_B.default.weight")):
                if name.endswith(mark):
                    layer = name.removeprefix("trunk.base_model.model.").removesuffix(mark)
                    parameter.copy_(torch.from_numpy(saved.adapters[layer][part]))
        for name, (weight, bias) in saved.outputs.items():
            module.outputs[name].weight.copy_(torch.from_numpy(weight))  # type: ignore[index, union-attr]
            module.outputs[name].bias.copy_(torch.from_numpy(bias))  # type: ignore[index, union-attr]
    running = network(folder, trunk)
    windows = running.cutter.windows([q for q, _ in PAIRS], [p for _, p in PAIRS])
    padded = running.cutter.pad(windows)
    with torch.inference_mode():
        beside = module.eval()(*(torch.from_numpy(a) for a in (padded.ids, padded.mask, padded.types)))
    for row, found in enumerate(running.run(windows)):
        n = len(windows[row].ids)
        np.testing.assert_allclose(found[SPAN], beside[SPAN][row, :n].numpy(), atol=2e-4)


@pytest.mark.parametrize("backend", ["torch-fp32", pytest.param("openvino", marks=[needs_openvino])])
def test_the_first_token_alone_says_what_it_said_among_all(
    trunk: ModelFiles, head: Head, tmp_path: Path, backend: Backend
) -> None:
    """The last layer computes one token where the head asks for no other."""
    for name, only in (("all", False), ("first", True)):
        save_head(replace(head, card=replace(head.card, first_only=only)), tmp_path / name)
    every, first = (network(tmp_path / name, trunk, backend) for name in ("all", "first"))
    windows = every.cutter.windows([q for q, _ in PAIRS], [p for _, p in PAIRS])
    for one, other in zip(every.run(windows), first.run(windows), strict=True):
        assert len(other[SPAN]) == len(other[KIND]) == 1
        tolerance = 2e-4 if backend == "torch-fp32" else 0.3  # bf16
        np.testing.assert_allclose(other[SPAN][0], one[SPAN][0], atol=tolerance)
        np.testing.assert_allclose(other[KIND][0], one[KIND][0], atol=tolerance)


def test_what_training_the_trunk_changed_is_cut_to_a_rank(trunk: ModelFiles, head: Head) -> None:
    """Nothing is lost at the rank of the change, and no more than the best approximation loses below it."""
    from agentmtl.trunk.head_module import factored_adapters, start_from, trainable_module

    module = trainable_module(trunk, head.card.outputs, 0, 1.0, 0.0, 0)
    start_from(module, head)  # a change of rank 4
    for rank in (4, 2):
        cut = factored_adapters(module, trunk, rank, 2.0)
        assert set(cut) == set(head.adapters)
        for name, (a, b) in head.adapters.items():
            whole, kept = head.card.scale * b @ a, 2.0 * cut[name][1] @ cut[name][0]
            lost = np.linalg.svd(whole, compute_uv=False)[rank:]
            assert cut[name][0].shape[0] == rank
            np.testing.assert_allclose(
                np.linalg.norm(whole - kept), np.linalg.norm(lost), rtol=1e-3, atol=1e-4
            )


@needs_openvino
def test_the_fast_path_gives_the_same_answers(trunk: ModelFiles, folder: Path) -> None:
    exact, fast = network(folder, trunk), network(folder, trunk, "openvino")
    cosine = np.corrcoef(logits(exact), logits(fast))[0, 1]
    assert cosine > 0.999
    texts = [(f"Who or when is {i}?", PASSAGE * (i % 3 + 1)) for i in range(6)]
    windows = exact.cutter.windows([q for q, _ in texts], [p for _, p in texts])
    first, second = (readings_of(windows, n.run(windows)) for n in (exact, fast))
    for pair in first:
        assert first[pair].margin == pytest.approx(second[pair].margin, rel=0.06, abs=0.3)  # bf16
    np.testing.assert_array_equal(logits(fast), logits(network(folder, trunk, "openvino")))


def test_a_head_for_another_trunk_is_refused(folder: Path, tmp_path: Path) -> None:
    other = tiny_trunk(tmp_path / "other", seed=5)
    with pytest.raises(EncoderError, match="another|made for the trunk") as error:
        network(folder, other)
    assert "agentmtl train reader" in error.value.hint


@pytest.mark.parametrize("damage", ["cut", "missing", "card", "format"])
def test_a_damaged_head_is_a_clear_error(folder: Path, tmp_path: Path, damage: str) -> None:
    for name in (TENSORS, CARD):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    if damage == "cut":
        (tmp_path / TENSORS).write_bytes((folder / TENSORS).read_bytes()[:-50])
    elif damage == "missing":
        (tmp_path / TENSORS).unlink()
    elif damage == "card":
        (tmp_path / CARD).write_text("{}")
    else:
        card = json.loads((tmp_path / CARD).read_text())
        (tmp_path / CARD).write_text(json.dumps({**card, "format": 99}))
    with pytest.raises(EncoderError, match="head"):
        load_head(tmp_path)


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=90), st.lists(st.sampled_from(["alpha", "Bêta,", "東京", "x9!", "\n"]), max_size=120))
@example("0000", ["alpha"] * 24 + ["Bêta,"] * 7 + ["x9!"] * 7 + ["alpha"])  # a tail once went unread
@example("0 " * 80, ["alpha"] * 30)
def test_windows_cover_the_text_and_point_back_into_it(question: str, parts: list[str]) -> None:
    text = " ".join(parts)
    windows = CUTTER().windows([question], [text])
    covered = np.zeros(len(text) + 1, bool)
    for window in windows:
        assert len(window.ids) <= 64 and len(window.ids) == len(window.types)
        mine = window.starts >= 0
        assert (window.types[mine] == 1).all() and not mine[0] and not mine[-1]
        for start, end in zip(window.starts[mine], window.ends[mine], strict=True):
            assert 0 <= start < end <= len(text)
            covered[start:end] = True
    letters = [i for i, c in enumerate(text) if c.isalnum()]
    assert all(covered[i] for i in letters)


def CUTTER() -> PairCutter:
    if not _CUTTERS:
        from agentmtl.trunk.loading import model_files

        _CUTTERS.append(PairCutter(model_files("default"), 64))
    return _CUTTERS[0]


_CUTTERS: list[PairCutter] = []


SHIPPED = sorted(p for p in (Path(agentmtl.trunk.heads.__file__).parent / "shipped").iterdir() if p.is_dir())
FREE = ("CC0", "MIT", "Apache", "CC BY 3.0", "CC BY 4.0", "CC BY-SA")  # under which a set may be learned from


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_what_ships_is_small_and_says_where_it_comes_from(folder: Path) -> None:
    assert shipped_head(folder.name) == folder
    card = json.loads((folder / CARD).read_text("utf-8"))
    assert card["command"] and card["metrics"] and (card.get("calibration") or folder.name != "reader")
    assert all(entry["licence"].startswith(FREE) for entry in card["data"].values())
    most = 5_000_000 if folder.name == "identifiers" else 4_000_000  # that one is a decoder
    assert sum(path.stat().st_size for path in folder.iterdir()) <= most


def test_all_that_ships_is_thirty_megabytes_at_most() -> None:
    assert sum(path.stat().st_size for folder in SHIPPED for path in folder.iterdir()) <= 30_000_000


@given(st.lists(st.integers(3, 400), min_size=1, max_size=60), st.integers(1, 8))
def test_batches_hold_every_row_once_and_little_padding(lengths: list[int], workers: int) -> None:
    windows = [Window(n, *(np.zeros(size, np.int64) for _ in range(4))) for n, size in enumerate(lengths)]
    found = batches(windows, workers)
    assert sorted(row for rows in found for row in rows) == list(range(len(lengths)))
    for rows in found:
        widest = max(lengths[row] for row in rows)
        assert len(rows) == 1 or widest * len(rows) <= 2048
    if workers > 1 and len(lengths) >= 4 * workers and min(lengths) == max(lengths) >= 48:
        assert len(found) >= workers
