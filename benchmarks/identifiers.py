"""Token streams: bytes and time to build, and next-token sets against infini-gram.

    python benchmarks/identifiers.py --data CORPUS.jsonl … [--tokens 1000000] [--queries 200] [--json]

The first `--tokens` tokens of the texts go into an index with one segment, into one with four, and into an
infini-gram index (its own engine, everything loaded to memory) over the same token ids. Prefixes of one, two
and three tokens are drawn from the text; the sets must be the same before anything is timed. infini-gram
counts while it goes, ours gives the set alone; `with counts` is our time with counts.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from timing import Row, once, over, parser, ratio, report, take_turns

from agentmtl import Document, Index
from agentmtl.index.identifiers import Ngrams, StreamTokenizer, load_tokenizer, ngrams_of
from agentmtl.index.identifiers.stream import arrays_of, tokenise

TARGETS = {1: 1_000.0, 2: 500.0, 3: 100.0}
SEGMENTS = 4
SEPARATOR = b"\xff\xff"  # infini-gram puts it before every document


def documents(paths: Sequence[Path], tokens: int, tokenizer: StreamTokenizer) -> list[Document]:
    """Texts without titles, until there are so many tokens."""
    found: list[Document] = []
    total = 0
    for path in paths:
        for line in path.read_text("utf-8").splitlines():
            text = json.loads(line)["text"]
            total += len(tokenizer.encode(text))
            found.append(Document(str(len(found)), text))
            if total >= tokens:
                return found
    return found


def make_index(folder: Path, texts: Sequence[Document], segments: int, tokenizer: StreamTokenizer) -> Index:
    index = Index.create(folder, encoder="hashing:8", levels=("passage", "sentence"), streams=[tokenizer])
    step = math.ceil(len(texts) / segments)
    for start in range(0, len(texts), step):
        index.add(texts[start : start + step])
    assert len(index.snapshot.segments) == segments, index.snapshot.segments
    return index


def infini_gram(folder: Path, texts: Sequence[Document], tokenizer: StreamTokenizer) -> Any:
    """infini-gram's own files over the same ids: tokens, byte-wise suffix array, document offsets."""
    from infini_gram.engine import InfiniGramEngine
    from pydivsufsort import divsufsort

    folder.mkdir()
    parts, offsets, at = [], [], 0
    for ids, _, _ in tokenizer.encode_batch([d.text for d in texts]):
        offsets.append(at)
        parts.append(SEPARATOR + ids.astype(np.uint16).tobytes())
        at += len(parts[-1])
    parts.append(SEPARATOR)  # where the file ends in a text, one-token prefixes at its end go wrong there
    data = np.frombuffer(bytearray(b"".join(parts)), np.uint8)
    suffixes = divsufsort(data)
    suffixes = suffixes[suffixes % 2 == 0].astype(np.uint64)
    width = math.ceil(math.log2(len(data)) / 8)  # bytes a pointer
    (folder / "tokenized.0").write_bytes(data.tobytes())
    (folder / "table.0").write_bytes(suffixes.view(np.uint8).reshape(-1, 8)[:, :width].tobytes())
    (folder / "offset.0").write_bytes(np.array(offsets, np.uint64).tobytes())
    return InfiniGramEngine(
        str(folder), eos_token_id=tokenizer.end, vocab_size=tokenizer.end + 1, load_to_ram=True
    )


def prefixes(
    texts: Sequence[Document], tokenizer: StreamTokenizer, length: int, count: int
) -> list[list[int]]:
    """n-grams drawn from the text, where something follows."""
    random = np.random.default_rng(length)
    found: list[list[int]] = []
    while len(found) < count:
        ids = tokenizer.encode(texts[int(random.integers(len(texts)))].text)
        if len(ids) > length:
            at = int(random.integers(len(ids) - length))
            found.append(ids[at : at + length])
    return found


def same_sets(engine: Any, ngrams: Ngrams, wanted: Sequence[list[int]]) -> None:
    for prefix in wanted:
        theirs = engine.ntd(prompt_ids=prefix, max_support=10**9)["result_by_token_id"]
        tokens, counts = ngrams.next_distribution(prefix)
        mine = dict(zip(tokens.tolist(), counts.tolist(), strict=True))
        assert {t: r["cont_cnt"] for t, r in theirs.items()} == mine, prefix


def timed(engine: Any, one: Ngrams, four: Ngrams, wanted: Sequence[list[int]], rounds: int) -> list[Row]:
    length = len(wanted[0])
    searches: dict[str, Callable[[], None]] = {
        "infini-gram": over(wanted[:40], lambda p: engine.ntd(prompt_ids=p, max_support=10**9), 0),
        "ours": over(wanted[:40], one.next_tokens, 0),
        "with counts": over(wanted[:40], one.next_distribution, 0),
        "four": over(wanted[:40], four.next_tokens, 0),
    }
    taken = take_turns(searches, rounds)
    return [
        Row(f"{length}-token prefixes, infini-gram ÷ ours", ratio(taken, "infini-gram", "ours"),
            at_least=TARGETS[length]),
        Row(f"{length}-token prefixes, infini-gram ÷ ours with counts",
            ratio(taken, "infini-gram", "with counts")),
        Row(f"{length}-token prefixes, four segments ÷ one", ratio(taken, "four", "ours"), at_most=5.0),
        Row(f"{length}-token prefixes, four segments ÷ one, with counts on both",
            ratio(taken, "four", "with counts")),
    ]  # fmt: skip


def building(index: Index, tokenizer: StreamTokenizer, rounds: int) -> list[Row]:
    (segment,) = index.snapshot.segments
    ratios, text = [], tokenise(segment, tokenizer)
    for _ in range(rounds):
        began = time.perf_counter()
        text = tokenise(segment, tokenizer)
        middle = time.perf_counter()
        arrays_of(text, segment, tokenizer)
        ratios.append((time.perf_counter() - middle) / (middle - began))
    size = sum(p.stat().st_size for p in (index.folder / "streams").rglob("*.arrays"))
    return [
        once("bytes a token", size / len(text.tokens), "bytes", at_most=12.0),
        once("suffix array, tables and boundaries ÷ tokenising", float(np.median(ratios)), "×", at_most=0.5),
    ]


def main() -> None:
    options = parser(__doc__, rounds=5)
    options.add_argument("--data", type=Path, nargs="+", required=True, help="JSON Lines with a text field")
    options.add_argument("--queries", type=int, default=200)
    options.add_argument("--tokens", type=int, default=1_000_000)
    arguments: argparse.Namespace = options.parse_args()
    tokenizer = load_tokenizer()
    texts = documents(arguments.data, arguments.tokens, tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        one = make_index(Path(folder) / "one", texts, 1, tokenizer)
        four = make_index(Path(folder) / "four", texts, SEGMENTS, tokenizer)
        engine = infini_gram(Path(folder) / "infini", texts, tokenizer)
        rows = building(one, tokenizer, arguments.rounds)
        mine, merged = ngrams_of(one.snapshot), ngrams_of(four.snapshot)
        for length in TARGETS:
            wanted = prefixes(texts, tokenizer, length, arguments.queries)
            same_sets(engine, mine, wanted)
            rows += timed(engine, mine, merged, wanted, arguments.rounds)
    report("identifiers", rows, arguments)


if __name__ == "__main__":
    main()
