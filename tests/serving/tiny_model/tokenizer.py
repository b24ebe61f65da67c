"""The tokenizer: byte-level BPE, trained on rendered prompts.

Three choices make copying from a prompt easy for a small network. Words and marks swallow the spaces around
them, names none, so that a name has the same tokens wherever it stands and what comes before it is a word
that says something. A citation mark is one piece. The fixed phrases of the prompt files are tokens of their
own, so that a prompt is mostly what differs between prompts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from agentmtl.experts.prompting import Prompts

PAD, SYSTEM, USER, ASSISTANT, END = "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"
ROLES = (PAD, SYSTEM, USER, ASSISTANT, END)
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
# A nonce, a mark, a digit, a word in small letters, a capitalised one, punctuation, space.
_PIECES = r"[0-9a-f]{16}| ?\[[0-9]+\] ?|[0-9]| ?[a-z]+ ?|[A-Z][a-z]*|[^\sA-Za-z0-9]+ ?|\s"
_TAG = re.compile(r"\{\{.*?\}\}|\{%.*?%\}")
_LEAST = 8  # characters of a phrase that becomes a token


def phrases() -> list[str]:
    """What the prompt files say between their values, by line; the longest first."""
    found: dict[str, None] = {}
    for prompt in Prompts().list():
        for line in prompt.path.read_text("utf-8").splitlines():
            for piece in _TAG.split(line):
                if len(piece) >= _LEAST and " " in piece.strip():
                    found[piece] = None
    found |= dict.fromkeys(
        ("=== documents ", "=== answers ", "=== conversation ", "=== end ", "=== examples ", "Question: ")
    )
    return sorted(found, key=lambda phrase: (-len(phrase), phrase))


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """A tokenizer of exactly `vocabulary` tokens: roles, bytes, merges learned from `texts`, phrases."""
    added = phrases()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(role, special=True, normalized=False) for role in ROLES])
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(added),
        special_tokens=list(ROLES),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(phrase, normalized=False) for phrase in added])
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, longest: int) -> None:
    """tokenizer.json and tokenizer_config.json, with the chat template inside."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, model_max_length=longest,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder, save_jinja_files=False)
