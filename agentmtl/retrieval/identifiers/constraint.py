"""The corpus as a constraint on decoding: only what goes on as the corpus does may be generated.

`CorpusConstraint` says which tokens may follow; the two wrappers give it the form that Hugging Face's
`generate` takes. `agentmtl.integrations.vllm_identifiers` gives it the form of vLLM.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agentmtl.index.identifiers import Ngrams


@dataclass(frozen=True, slots=True)
class CorpusConstraint:
    """Keys of at most `longest` tokens that occur in the live corpus. `stop` is the model's end token.

    `in_title` keys begin where a title begins and end where it does.
    """

    ngrams: Ngrams
    stop: int
    longest: int = 10
    in_title: bool = False

    def allowed(self, key: Sequence[int]) -> list[int]:
        """The tokens that may follow the key so far; `stop` alone where nothing may."""
        tokenizer = self.ngrams.tokenizer
        if len(key) >= self.longest:
            return [self.stop]
        prefix = [tokenizer.title, *key] if self.in_title else list(key)
        following = self.ngrams.next_tokens(prefix)
        tokens = [int(t) for t in following if t < tokenizer.vocabulary]
        ends = bool((following == tokenizer.title_end).any()) if self.in_title else len(key) > 0
        return [*tokens, self.stop] if ends or not tokens else tokens


def prefix_allowed_tokens(
    constraint: CorpusConstraint, prompt_length: int
) -> Callable[[int, Any], list[int]]:
    """`prefix_allowed_tokens_fn` for `generate`: `prompt_length` ids stand before the key (for a seq2seq
    model 1, its decoder start)."""

    def allowed(batch: int, ids: Any) -> list[int]:
        key = [int(i) for i in ids[prompt_length:]]
        return [constraint.stop] if constraint.stop in key else constraint.allowed(key)

    return allowed
