"""The options that a query lists, and how alike they are: where they are alike, what is asked is a nicety,
and experts differ in other ways than where they are not.

    A. a lighthouse          (A) yes          A) 1820
    B. a bridge              (B) no           B) 1830
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from agentmtl.routing.route import Floats
from agentmtl.trunk.encoder import Encoder

FEATURES = 4
_MARK = re.compile(r"^[ \t]*(?:\(([A-Z])\)|([A-Z])[.):])[ \t]+(?=\S)", re.M)
_MOST = 26


def options_of(text: str) -> tuple[str, ...]:
    """The lettered options of a text, each from the start of a line, A first and none left out; () where
    there are fewer than two. All but the last may take several lines."""
    found: list[str] = []
    marks = [(m.group(1) or m.group(2), m.start(), m.end()) for m in _MARK.finditer(text)]
    for n, (letter, _, start) in enumerate(marks):
        if letter != chr(ord("A") + len(found)):
            if letter != "A":
                continue
            found = []  # a list that begins anew: the last one counts
        following = marks[n + 1][1] if n + 1 < len(marks) else len(text)
        found.append(text[start:following].strip())
    if len(found) < 2 or len(found) > _MOST:
        return ()
    found[-1] = found[-1].split("\n", 1)[0].strip()
    return tuple(found)


def likeness(texts: Sequence[str], encoder: Encoder) -> Floats:
    """(n, 4) of each text: 1 where it lists options, and their mean, highest and lowest cosine in pairs; all
    0 where it lists none. Raises EncoderError."""
    listed = [options_of(text) for text in texts]
    distinct = list(dict.fromkeys(option for mine in listed for option in mine))
    found = np.zeros((len(texts), FEATURES))
    if not distinct:
        return found
    vectors = np.asarray(encoder.encode(distinct, "document"), np.float64)
    places = {option: n for n, option in enumerate(distinct)}
    for row, mine in enumerate(listed):
        if mine:
            rows = vectors[[places[option] for option in mine]]
            cosines = [float(rows[a] @ rows[b]) for a, b in combinations(range(len(rows)), 2)]
            found[row] = 1.0, np.mean(cosines), max(cosines), min(cosines)
    return found
