"""Keys from a language model: beam search under the corpus's constraint, every prefix of every beam kept.

Any Hugging Face seq2seq or causal model. It is asked with a task's prompt: discrete (text in front of the
query), soft ((m, d) input embeddings in front of everything) or both. A key's log-probability is the model's
own, without the constraint, summed over its tokens: what a teacher-forced pass would give (SEAL, arXiv
2204.10628, section 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentmtl.errors import UsageError
from agentmtl.index.identifiers import Ngrams
from agentmtl.retrieval.identifiers.constraint import CorpusConstraint
from agentmtl.retrieval.identifiers.keys import Context, Key, says_something

PROMPT = "Find the relevant {level}: {query}"


@dataclass(frozen=True)
class LanguageModelKeys:
    """`model` and `tokenizer` as `transformers` gives them; the index needs that tokeniser's stream.

    `prompt` has {query} and may have {level}; `soft_prompt` (m, d) torch tensor or None.
    """

    model: Any
    tokenizer: Any
    prompt: str = PROMPT
    soft_prompt: Any = None
    beams: int = 8
    longest: int = 6
    titles: bool = True
    name: str = "language model"

    def propose(self, query: str, ngrams: Ngrams, context: Context) -> list[Key]:
        """The prefixes of all beams, of texts and of titles; each with one live occurrence at least."""
        start = self._start(query, context)
        likely: dict[tuple[int, ...], float] = {}
        for in_title in (False, True) if self.titles else (False,):
            constraint = CorpusConstraint(ngrams, self._stop(), self.longest, in_title)
            for tokens, logp in self._beam(start, constraint):
                key = self._key(tokens, ngrams, in_title)
                if says_something(tokens, ngrams) and ngrams.count(key):
                    likely[key] = max(logp, likely.get(key, logp))
        return [Key(tokens, min(0.0, logp)) for tokens, logp in sorted(likely.items())]

    @staticmethod
    def _key(tokens: tuple[int, ...], ngrams: Ngrams, in_title: bool) -> tuple[int, ...]:
        """A title's key begins with its marker, and ends with it where nothing else can follow."""
        if not in_title:
            return tokens
        t = ngrams.tokenizer
        whole = (t.title, *tokens, t.title_end)
        return whole if ngrams.count(whole) else whole[:-1]

    def _stop(self) -> int:
        for given in (self.model.config.eos_token_id, self.tokenizer.eos_token_id):
            if isinstance(given, int):
                return given
        raise UsageError("The model has no end token.", "Set config.eos_token_id.")

    # --- the model --------------------------------------------------------------------------------

    def _start(self, query: str, context: Context) -> _Start:
        """The prompt as embeddings, soft ones first, and for a seq2seq model its encoded form."""
        import torch

        text = self.prompt.format(level=context.level, query=query)
        ids = self.tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
        embed = self.model.get_input_embeddings()
        with torch.no_grad():
            rows = embed(ids)
            if self.soft_prompt is not None:
                rows = torch.cat([self.soft_prompt.to(rows.dtype)[None], rows], dim=1)
            if not self.model.config.is_encoder_decoder:
                return _Start(rows, None)
            encoded = self.model.get_encoder()(inputs_embeds=rows)
        return _Start(rows, encoded)

    def _beam(self, start: _Start, constraint: CorpusConstraint) -> list[tuple[tuple[int, ...], float]]:
        """Every prefix of every beam with its log-probability."""
        import torch

        beams: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
        found: list[tuple[tuple[int, ...], float]] = []
        while beams:
            scores = self._next_scores(start, [tokens for tokens, _ in beams])
            grown: list[tuple[tuple[int, ...], float]] = []
            for (tokens, logp), row in zip(beams, scores, strict=True):
                allowed = [t for t in constraint.allowed(tokens) if t != constraint.stop]
                allowed = [t for t in allowed if t < len(row)]
                if not allowed:
                    continue
                values, places = torch.topk(row[allowed], min(self.beams, len(allowed)))
                chosen = [allowed[p] for p in places.tolist()]
                steps = zip(chosen, values.tolist(), strict=True)
                grown += [((*tokens, t), logp + value) for t, value in steps]
            beams = sorted(grown, key=lambda beam: (-beam[1], beam[0]))[: self.beams]
            found += beams
        return found

    def _next_scores(self, start: _Start, keys: Sequence[tuple[int, ...]]) -> Any:
        """(beams, vocabulary) log-probabilities of the next token. All keys have the same length."""
        import torch

        ids = torch.tensor([list(key) for key in keys], dtype=torch.long).reshape(len(keys), -1)
        with torch.no_grad():
            if start.encoded is not None:
                first = torch.full((len(keys), 1), int(self.model.config.decoder_start_token_id))
                states = start.encoded.last_hidden_state.expand(len(keys), -1, -1)
                logits = self.model(
                    encoder_outputs=(states,), decoder_input_ids=torch.cat([first, ids], dim=1)
                ).logits
            else:
                rows = start.rows.expand(len(keys), -1, -1)
                if ids.shape[1]:
                    rows = torch.cat([rows, self.model.get_input_embeddings()(ids)], dim=1)
                logits = self.model(inputs_embeds=rows).logits
        return torch.log_softmax(logits[:, -1].float(), dim=-1)


@dataclass(frozen=True, slots=True)
class _Start:
    """The prompt: embeddings (1, n, d), and what a seq2seq model's encoder makes of them."""

    rows: Any
    encoded: Any


def save_soft_prompt(prompt: Any, path: Path) -> None:
    """Write an (m, d) soft prompt as safetensors."""
    from safetensors.torch import save_file

    save_file({"prompt": prompt.contiguous()}, str(path))


def load_soft_prompt(path: Path) -> Any:
    """Read a soft prompt (m, d). Raises UsageError where the file holds none."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        prompt = load_file(str(path))["prompt"]
    except (OSError, KeyError, SafetensorError) as error:
        raise UsageError(
            f"{path} holds no soft prompt ({error}).", "Give a file of save_soft_prompt."
        ) from error
    return prompt
