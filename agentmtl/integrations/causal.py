"""A Hugging Face causal model in this process, as a judge of text (`agentmtl.experts.scoring.Scorer`)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentmtl.errors import ModelError, UsageError
from agentmtl.experts.scoring import Pair, Score, TokenScores, score_of, texts_to_score

_AT_ONCE = 16  # texts read together


class CausalScorer:
    """Scores with a model's folder, on the CPU or CUDA; threads take turns. Nothing is downloaded, no code
    of the folder runs."""

    def __init__(self, folder: Path, at_once: int = _AT_ONCE) -> None:
        """Raises ModelError where the folder holds no causal model with safetensors weights."""
        if not folder.is_dir():
            raise ModelError(f"There is no folder {folder}.", "Give that of a causal language model.")
        try:
            import torch
            from transformers import AutoModelForCausalLM, AutoTokenizer

            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
            model: Any = AutoModelForCausalLM.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False, use_safetensors=True
            )
        except (OSError, ValueError, ImportError) as error:
            raise ModelError(
                f"{folder} cannot be loaded as a causal language model: {error}.",
                "Give the folder of one, with safetensors weights.",
            ) from error
        self._model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        self._at_once, self._lock = at_once, threading.Lock()

    def score(self, prompt: str, continuations: Sequence[str]) -> list[Score]:
        """A score for each continuation of one prompt. Raises UsageError for an empty one, or where both
        together are longer than the model reads."""
        return self.score_pairs([(prompt, continuation) for continuation in continuations])

    def score_pairs(self, pairs: Sequence[Pair]) -> list[Score]:
        """The same for pairs, together."""
        texts = texts_to_score(pairs)
        order = sorted(texts, key=len)  # texts of like length together
        read: dict[str, TokenScores] = {}
        with self._lock:
            for at in range(0, len(order), self._at_once):
                part = order[at : at + self._at_once]
                read.update(zip(part, self._read(part), strict=True))
        return [score_of(read[prompt], read[prompt + continuation]) for prompt, continuation in pairs]

    def _read(self, texts: Sequence[str]) -> list[TokenScores]:
        import torch

        rows = [self._tokenizer(text, add_special_tokens=True)["input_ids"] for text in texts]
        longest = getattr(self._model.config, "max_position_embeddings", None)
        if longest is not None and max(map(len, rows)) > longest:
            raise UsageError(
                f"A text of {max(map(len, rows))} tokens does not fit the model's {longest}.",
                "Give shorter examples, or a model that reads more.",
            )
        width = max(map(len, rows))
        ids = torch.zeros((len(rows), width), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, : len(row)], mask[number, : len(row)] = torch.tensor(row), 1
        device = self._model.device
        with torch.inference_mode():
            logits = self._model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits.float()
            chances = torch.log_softmax(logits[:, :-1], -1)
            chosen = chances.gather(2, ids.to(device)[:, 1:, None])[:, :, 0].cpu()
        return [
            TokenScores(tuple(row), (None, *chosen[number, : len(row) - 1].tolist()))
            for number, row in enumerate(rows)
        ]
