"""Keys from a trained decoder over the trunk (`agentmtl train identifiers`).

Three sources, each switched on by its number: the query's n-grams, the n-grams of the best hits so far, and
the decoder's own beam search under the corpus's constraint. Whatever the source, a key's ln P(n | q) is the
decoder's: the first two are read by it (teacher forcing), as SEAL rescores what the query proposes (arXiv
2204.10628, section 3.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agentmtl.errors import UsageError
from agentmtl.index.identifiers import Ngrams
from agentmtl.retrieval.fusion import AGAIN
from agentmtl.retrieval.identifiers.keys import MAX_KEYS, Context, Key, token_kinds
from agentmtl.retrieval.identifiers.scoring import Scoring, key_weights
from agentmtl.retrieval.identifiers.teacher import LIKELIEST, Tokens, key_logps, shares_of
from agentmtl.trunk.decoder import ASKED, Memory
from agentmtl.trunk.decoder_files import KeyDecoder
from agentmtl.trunk.heads import shipped_head

_LONG_LIST = 4_000  # tokens that may follow, above which all of the vocabulary is scored at once


@dataclass(frozen=True)
class TrainedKeys:
    """`query` and `found`: the longest n-gram, in tokens, taken from the query and from the first hits; 0:
    none. `beams` of at most `longest` tokens; 0: none."""

    decoder: KeyDecoder
    query: int = 2
    found: int = 1
    hits: int = AGAIN
    beams: int = 0
    longest: int = 4
    scoring: Scoring = field(default_factory=Scoring)
    name: str = "decoder"
    _known: list[Any] = field(init=False, default_factory=lambda: [None, None], repr=False, compare=False)

    @property
    def stream(self) -> str:
        """The identity of the tokeniser whose tokens the keys are of."""
        return self.decoder.card.tokenizer

    def propose(self, query: str, ngrams: Ngrams, context: Context) -> list[Key]:
        """The heaviest keys. Each has a live occurrence. Raises UsageError where the index's tokens are
        another model's; EncoderError where the decoder or its trunk does not load."""
        import torch

        if ngrams.tokenizer.identity != self.decoder.card.tokenizer:
            raise UsageError(
                "The decoder speaks of other tokens than this stream of the index.",
                "Use the stream of its trunk: agentmtl index stream DIR --tokenizer MODEL",
            )
        if context.level not in ASKED:
            return []
        with torch.inference_mode():
            prior = self._prior(ngrams)
            memory = self.decoder.remember(query, context.level, prior)
            likely = self._beam(memory, ngrams) if self.beams else {}
            given = [n for n in self._given(query, ngrams, context) if n not in likely]
            if given:
                logps = key_logps(self.decoder.module, memory, [given]).tolist()
                likely |= dict(zip(given, logps, strict=True))
        return self._heaviest(likely, ngrams)

    def _prior(self, ngrams: Ngrams) -> Any:
        """`shares_of` this corpus; remembered while the same one is asked."""
        known, prior = self._known
        if known is not ngrams:
            counts = np.zeros(ngrams.tokenizer.vocabulary, np.int64)
            tokens, found = ngrams.next_distribution([])
            counts[tokens[tokens < len(counts)]] = found[tokens < len(counts)]
            prior = shares_of(self.decoder.module, counts, ngrams.tokens, self.scoring.smoothing)
            self._known[:] = ngrams, prior
        return prior

    def _heaviest(self, likely: dict[Tokens, float], ngrams: Ngrams) -> list[Key]:
        keys = [Key(tokens, min(LIKELIEST, logp)) for tokens, logp in sorted(likely.items())]
        if not keys:
            return []
        counts = ngrams.counts([key.tokens for key in keys])
        weights = key_weights(keys, counts, ngrams.tokens, self.scoring)
        order = np.argsort(-weights, kind="stable")[:MAX_KEYS]
        return [keys[i] for i in order.tolist() if weights[i] > 0]

    def _given(self, query: str, ngrams: Ngrams, context: Context) -> list[Tokens]:
        """The n-grams of the query that occur, and of the hits."""
        begins, says = token_kinds(ngrams.tokenizer)
        asked = {
            n for n in _spans(ngrams.tokenizer.encode(query), self.query, begins, says) if ngrams.count(n)
        }
        if context.level != "entity":
            for segment, position in context.hits[: self.hits]:
                tokens = ngrams.unit_tokens(context.level, segment, position).tolist()
                asked |= set(_spans(tokens, self.found, begins, says))
        return sorted(asked)

    # --- the decoder's own ------------------------------------------------------------------------

    def _beam(self, memory: Memory, ngrams: Ngrams) -> dict[Tokens, float]:
        """Every prefix of every beam that may be a key, with ln P. A title's begin with its marker."""
        import torch

        begins, says = token_kinds(ngrams.tokenizer)
        size, module = ngrams.tokenizer.vocabulary, self.decoder.module
        hidden, past = module.begin(memory)
        first = module.scores(memory, hidden)[0, 0].numpy()
        legal = ngrams.next_tokens([])
        legal = legal[(legal == ngrams.tokenizer.title) | ((legal < size) & _at(begins & says, legal))]
        best = legal[np.argsort(-first[legal], kind="stable")[: self.beams]].tolist()
        beams: list[tuple[Tokens, float]] = [((t,), float(first[t])) for t in best]
        found = dict(beams)
        parents = torch.zeros((1, len(beams)), dtype=torch.long)
        for _ in range(1, self.longest):
            tokens = torch.tensor([[beam[0][-1] for beam in beams]], dtype=torch.long)
            hidden, past = module.step(memory, tokens, past, parents)
            grown = self._grown(memory, hidden, tokens, beams, ngrams)
            if not grown:
                break
            grown.sort(key=lambda one: (-one[1], one[0]))
            beams = [(key, logp) for key, logp, _ in grown[: self.beams]]
            parents = torch.tensor([[parent for _, _, parent in grown[: self.beams]]])
            found |= dict(beams)
        titled = ngrams.tokenizer.title
        return {
            key: logp for key, logp in found.items() if (len(key) > 1 if key[0] == titled else says[key[-1]])
        }

    def _grown(
        self, memory: Memory, hidden: Any, before: Any, beams: Sequence[tuple[Tokens, float]], ngrams: Ngrams
    ) -> list[tuple[Tokens, float, int]]:
        """(key, ln P, the beam it goes on from) of every legal continuation; a title's end is one, a text's
        is none."""
        import torch

        tokenizer = ngrams.tokenizer
        rows: list[tuple[int, int]] = []
        for n, (key, _) in enumerate(beams):
            titled = key[0] == tokenizer.title
            limit = tokenizer.title_end + 1 if titled else tokenizer.vocabulary
            if key[-1] >= tokenizer.vocabulary and key[-1] != tokenizer.title:
                continue
            rows += [
                (n, t)
                for t in ngrams.next_tokens(key).tolist()
                if t < limit and t != tokenizer.title and t != tokenizer.end
            ]
        if not rows:
            return []
        at = torch.tensor([(0, n) for n, _ in rows])
        tokens = torch.tensor([t for _, t in rows])
        if len(rows) > _LONG_LIST:
            logps = self.decoder.module.scores(memory, hidden, before)[0][at[:, 1], tokens].tolist()
        else:
            logps = self.decoder.module.scores_at(memory, hidden, at, tokens, before).tolist()
        return [((*beams[n][0], t), beams[n][1] + logp, n) for (n, t), logp in zip(rows, logps, strict=True)]


def trained_keys(name: str) -> TrainedKeys:
    """The proposer of a decoder: of a folder, or of the one that comes with the package, by its name.

    Raises EncoderError where it cannot be read or its trunk is not there.
    """
    return TrainedKeys(KeyDecoder(shipped_head(name) or Path(name)))


def _spans(tokens: Sequence[int], longest: int, begins: Any, says: Any) -> Iterable[Tokens]:
    """The n-grams that begin a word and are not of stop words alone."""
    for start, token in enumerate(tokens):
        if begins[token]:
            for end in range(start + 1, min(start + longest, len(tokens)) + 1):
                if says[list(tokens[start:end])].any():
                    yield tuple(tokens[start:end])


def _at(flags: Any, tokens: Any) -> Any:
    """The flags of tokens; those of markers are False."""
    return np.append(flags, np.zeros(8, np.bool_))[np.minimum(tokens, len(flags))]
