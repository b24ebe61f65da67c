"""Names that nobody has heard of: a model can only give one back by copying it from its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from zlib import crc32


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_STARTS = _words("B Br C Cl D Dr E F Fl G Gr H J K L M N O P R S Sk St T Th Tr V W Y Z")
_VOWELS = _words("a e i o u ei ou")
_CLOSES = _words("l n r m s t nd rn l n r") + ("",) * 4
# Half-names, few enough that each becomes one token: a name is two tokens long, or three.
_RIMES = _words("al an ar el en er il in or ol um ur ou ei ast ack ond irn")
_HEADS = [start + _RIMES[(5 * n + k) % len(_RIMES)] for n, start in enumerate(_STARTS) for k in range(5)]
_TOWN = _words(
    "by ton wick ford mere holm stad burg vik nes dal wold ham mouth worth ley den gate bury haven brook "
    "field stow rad lund sund bach hurst combe"
)
_FIRST = _words("ra la na n s ta ric lin da mo lia ren vin dra sa th lo ka nna bert")
_LAST = _words("holm man sen ter son well ner rick gard low croft ling bert stone berg more vik")
_LAND = _words("ria land nia mark via stan nor thea lia dor")
_RIVER = _words("sel ne re der va lune ra mer ya we lva nt")
TRADES = _words("clockmaker engineer painter sailor farmer doctor baker mason printer teacher")
WORKS = _words(
    "Bridge Tower Hall Mill Lighthouse Harbour Castle Library School Chapel Museum Station Theatre Canal"
)
SOCIETIES = _words("Society Company Club Bank Guild Press")
_HELD_OUT_SHARE = 10  # one name in so many is never trained on


class Names:
    """Draws names, either of those that are trained on or of those held out; a share `strange` of them made
    of letters alone. No name comes twice from one object until `forget`."""

    def __init__(self, random: Random, held_out: bool, strange: float) -> None:
        self.random, self.held_out, self._strange = random, held_out, strange
        self._used: set[str] = set()

    def forget(self) -> None:
        self._used.clear()

    def town(self) -> str:
        return self._new(_TOWN)

    def land(self) -> str:
        return self._new(_LAND)

    def river(self) -> str:
        return self._new(_RIVER)

    def person(self) -> str:
        """Two names, at times one."""
        last = self._new(_LAST)
        return last if self.random.random() < 0.15 else f"{self._new(_FIRST, once=False)} {last}"

    def work(self) -> str:
        """ "the Foulby Bridge" or "the bridge of Foulby"."""
        return self._of(self.random.choice(WORKS))

    def society(self) -> str:
        return self._of(self.random.choice(SOCIETIES))

    def year(self) -> str:
        return str(self.random.randint(1600, 2029))

    def number(self) -> str:
        return str(self.random.randint(12, 9999))

    def trade(self) -> str:
        return self.random.choice(TRADES)

    def word(self) -> str:
        """A word that there is not, in small letters."""
        return "".join(self._syllable() for _ in range(self.random.choice((1, 2, 2, 3))))

    def _syllable(self) -> str:
        draw = self.random.choice
        return draw(_STARTS).lower() + draw(_VOWELS) + draw(_CLOSES)

    def _of(self, noun: str) -> str:
        name = self._new(_TOWN)
        return f"the {name} {noun}" if self.random.random() < 0.7 else f"the {noun.lower()} of {name}"

    def _new(self, ends: Sequence[str], once: bool = True) -> str:
        while True:
            name = self._drawn(ends)
            fresh = not once or name not in self._used
            if fresh and is_held_out(name) == self.held_out:
                self._used.add(name)
                return name

    def _drawn(self, ends: Sequence[str]) -> str:
        if self.random.random() < self._strange:  # as names elsewhere are made: letters in a speakable order
            return self.word().capitalize()
        return self.random.choice(_HEADS) + self.random.choice(ends)


def is_held_out(name: str) -> bool:
    """Whether a name is one of those that no training example has."""
    return crc32(name.encode()) % _HELD_OUT_SHARE == 0
