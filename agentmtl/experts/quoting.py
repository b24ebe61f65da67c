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

_LIKE = {
    **dict.fromkeys("˂ᐸ⋖≺≪⪡⪻", "<"), **dict.fromkeys("˃ᐳ⋗≻≫⪢⪼", ">"),
    **dict.fromkeys("│┃∣❘⎸⏐ǀ¦╎╏ⵏꟾ", "|"), **dict.fromkeys("∕⁄⧸", "/"), "▁": "_",
}  # fmt: skip
_OPENS, _CLOSES = frozenset({"Ps", "Pi"}), frozenset({"Pe", "Pf"})  # Unicode's categories of brackets
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
    r"|([`~])(?=\1\1)"  # a block of code, which some models call tools by
    r"|\[(?=(?:/\s*)?(?:[A-Z][A-Z0-9_]+|(?i:g?mask|inst|sys|system\w*|user|assistant|human|think|"
    r"(?:available_)?tools?\w*|function\w*))\s*\])"  # [INST], [/INST], [TOOL_CALLS]
)


def quoted(text: str) -> str:
    """Text as data: on one line, "[3]" as "(3)", and no tag that a chat template could take for a role or a
    call of a tool. Brackets that only look like those count as well."""
    return untagged(unmarked(text))


def untagged(text: str) -> str:
    """Text on one line, without what hides text and without tags; its marks stay."""
    return _broken(" ".join(text.translate(_HIDDEN).split()), _TAG)


def unmarked(text: str) -> str:
    """Text in which no bracketed number can pass for a citation: "[3]" becomes "(3)"."""
    found = _places(text, _MARK)
    if not found:
        return text
    changed = list(text)
    for first, last in found:
        changed[first], changed[last] = "(", ")"
    return "".join(changed)


def _broken(text: str, pattern: re.Pattern[str]) -> str:
    """With a blank after the first character of every match."""
    found = _places(text, pattern)
    if not found:
        return text
    changed = list(text)
    for at in {first for first, _ in found}:
        changed[at] += " "
    return "".join(changed)


def _places(text: str, pattern: re.Pattern[str]) -> list[tuple[int, int]]:
    """Where the first and the last character of every match in the skeleton stand in the text."""
    seen = text if text.isascii() else text.translate(_SKELETON)
    spans = [(match.start(), match.end() - 1) for match in pattern.finditer(seen)]
    if not spans or text.isascii():
        return spans
    places = [at for at, char in enumerate(text) for _ in _SKELETON[ord(char)]]
    return [(places[first], places[last]) for first, last in spans]


class _Plain(dict[int, str]):
    """For `str.translate`: what a careless reader sees of a character; worked out once for each."""

    def __missing__(self, code: int) -> str:
        self[code] = plain = _plain(chr(code))
        return plain


_SKELETON = _Plain()


def _plain(char: str) -> str:
    if char in _UNSEEN or unicodedata.category(char) in {"Cf", "Mn", "Me"}:
        return ""
    return "".join(_LIKE.get(one) or _bracket(one) for one in unicodedata.normalize("NFKC", char))


def _bracket(char: str) -> str:
    """A square or an angle bracket, by what Unicode calls the character; itself where it is neither."""
    category, name = unicodedata.category(char), unicodedata.name(char, "")
    if category not in _OPENS | _CLOSES:
        return char
    opens = category in _OPENS
    if any(word in name for word in ("ANGLE", "-THAN", "BINDING")):
        return "<" if opens else ">"
    if any(word in name for word in ("BRACKET", "CEILING", "FLOOR")) and "CURLY" not in name:
        return "[" if opens else "]"
    return char
