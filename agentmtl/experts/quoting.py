"""Text as data: what was retrieved, written so that nothing in it can pass for a citation mark, the tag of a
chat template or a line of a prompt.

A reader does not see which of Unicode's many brackets, digits and invisible characters it has before it. So
patterns are looked for in the text's skeleton: compatibility forms taken apart (NFKC), look-alikes of
brackets and bars as ASCII, what has no width left out (compare Unicode Technical Standard 39, section 4).
Only the brackets of what is found are changed; every other character stays, but those that hide text.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_SQUARE, _CLOSED = "[【〔〖〘〚⟦⁅❲⦋⦗⟬⸢｢「『", "]】〕〗〙〛⟧⁆❳⦌⦘⟭⸣｣」』"
_ANGLE, _RIGHT, _BARS = "<‹«⟨〈《❬❰❮⧼˂ᐸ⋖≺⪡≪⟪", ">›»⟩〉》❭❱❯⧽˃ᐳ⋗≻⪢≫⟫", "|│┃∣❘⎸⏐ǀ¦╎╏ⵏꟾ"
_LIKE = {
    **dict.fromkeys(_SQUARE, "["), **dict.fromkeys(_CLOSED, "]"), **dict.fromkeys(_ANGLE, "<"),
    **dict.fromkeys(_RIGHT, ">"), **dict.fromkeys(_BARS, "|"), "∕": "/", "⁄": "/", "⧸": "/", "▁": "_",
}  # fmt: skip
_UNSEEN = frozenset("\u115f\u1160\u3164\uffa0\u2800")  # letters and symbols that show nothing

# Characters that carry hidden text or turn it round; joiners, which scripts and emoji need, are kept.
_HIDDEN = {
    **dict.fromkeys([0xAD, 0x180E, 0x200B, 0x200E, 0x200F, 0xFEFF, *_UNSEEN]),
    **dict.fromkeys([*range(0x202A, 0x202F), *range(0x2060, 0x2070), *range(0xE0000, 0xE0FFF)]),
    **dict.fromkeys([*range(9), *range(14, 28), *range(0x7F, 0x85), *range(0x86, 0xA0)], " "),
}
_HIDDEN = {ord(key) if isinstance(key, str) else key: value for key, value in _HIDDEN.items()}

_MARK = re.compile(r"\[[\s^#]*\d[\d\s,;:.†*‐-―-]*\]")  # [3], [1, 2], [^4], [2-5]
_TAG = re.compile(
    r"<(?=[|/!?\w])"  # <|im_start|>, </s>, <start_of_turn>, <<SYS>>
    r"|\[(?=\s*/?\s*(?:[A-Z][A-Z0-9_]+|(?i:g?mask|inst|sys|system\w*|user|assistant|human|think|"
    r"(?:available_)?tools?\w*|function\w*))\s*\])"  # [INST], [/INST], [TOOL_CALLS]
)


def quoted(text: str) -> str:
    """Text as data: on one line, "[3]" as "(3)", and no tag that a chat template could take for a role or a
    call of a tool. Brackets that only look like those count as well."""
    line = " ".join(text.translate(_HIDDEN).split())
    return _broken(unmarked(line), _TAG)


def unmarked(text: str) -> str:
    """Text in which no bracketed number can pass for a citation: "[3]" becomes "(3)"."""
    seen, places = _skeleton(text)
    changed = list(text)
    for found in _MARK.finditer(seen):
        changed[places[found.start()]], changed[places[found.end() - 1]] = "(", ")"
    return "".join(changed)


def _broken(text: str, pattern: re.Pattern[str]) -> str:
    """With a blank after the first character of every match."""
    seen, places = _skeleton(text)
    changed = list(text)
    for at in {places[found.start()] for found in pattern.finditer(seen)}:
        changed[at] += " "
    return "".join(changed)


def _skeleton(text: str) -> tuple[str, range | list[int]]:
    """The text as a careless reader sees it, and the place in `text` of each of its characters."""
    if text.isascii():
        return text, range(len(text))
    seen = [_plain(char) for char in text]
    return "".join(seen), [at for at, plain in enumerate(seen) for _ in plain]


@lru_cache(maxsize=4096)
def _plain(char: str) -> str:
    if char in _UNSEEN or unicodedata.category(char) in {"Cf", "Mn", "Me"}:
        return ""
    return "".join(_LIKE.get(one, one) for one in unicodedata.normalize("NFKC", char))
