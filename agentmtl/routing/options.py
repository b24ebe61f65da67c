"""The options that a query lists, and how alike they are: where they are alike, what is asked is a nicety,
and experts differ in other ways than where they are not.

    A. a lighthouse          (A) yes          A) 1820
    B. a bridge              (B) no           B) 1830
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from agentmtl.routing.route import Floats
from agentmtl.trunk.encoder import Encoder
from agentmtl.trunk.kept import kept_vectors

FEATURES = 4
_PARAGRAPH = re.compile(r"\n[ \t\r]*\n")
_MARK = re.compile(r"^[ \t]*(?:\(([A-Z])\)|([A-Z])([.)]))[ \t]+(?=\S)", re.M)


def options_of(text: str) -> tuple[str, ...]:
    """The lettered options of a text, each from the start of a line, A first, none left out and all marked
    alike; of several lists the last. () where there are fewer than two, or a paragraph ends within one. All
    but the last may take several lines."""
    runs: list[list[re.Match[str]]] = []
    for mark in _MARK.finditer(text):
        if _letter(mark) == "A":
            runs.append([mark])
        elif runs and _goes_on(runs[-1], mark):
            runs[-1].append(mark)
    run = next((run for run in reversed(runs) if len(run) > 1), None)
    if run is None:
        return ()
    ends = [mark.start() for mark in run[1:]]
    found = [text[mark.end() : end].strip() for mark, end in zip(run, ends, strict=False)]
    last = text[run[-1].end() :].split("\n", 1)[0].strip()
    return () if any(_PARAGRAPH.search(option) for option in found) else (*found, last)


def _letter(mark: re.Match[str]) -> str:
    return str(mark[1] or mark[2])


def _goes_on(run: list[re.Match[str]], mark: re.Match[str]) -> bool:
    return _letter(mark) == chr(ord("A") + len(run)) and mark[3] == run[0][3]


def likeness(texts: Sequence[str], encoder: Encoder, cache: Path | None = None) -> Floats:
    """(n, 4) of each text: 1 where it lists options, and their mean, highest and lowest cosine in pairs; all
    0 where it lists none. `cache`: a folder that keeps the options' vectors. Raises EncoderError."""
    listed = [options_of(text) for text in texts]
    distinct = list(dict.fromkeys(option for mine in listed for option in mine))
    found = np.zeros((len(texts), FEATURES))
    if not distinct:
        return found
    read = kept_vectors(encoder, distinct, "document", cache) if cache else encoder.encode(distinct)
    vectors = np.asarray(read, np.float64)
    places = {option: n for n, option in enumerate(distinct)}
    for row, mine in enumerate(listed):
        if mine:
            rows = vectors[[places[option] for option in mine]]
            cosines = [float(rows[a] @ rows[b]) for a, b in combinations(range(len(rows)), 2)]
            found[row] = 1.0, np.mean(cosines), max(cosines), min(cosines)
    return found
