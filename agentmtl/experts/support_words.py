"""English words that `experts.support_features` treats in a way of their own.

Written by hand; not complete, and nothing here for other languages.
"""

from __future__ import annotations

from agentmtl.index.tokens import words

_FUNCTION = """
a an the of in on at to for from by with and or but as is are was were be been being am do does did
has have had having this that these those it its their there they them we you he she his her him i
my your who whom whose what which when where why how many much some any can could may might will
would shall should must into than then also not no nor so such if about over during between s t
"""
_GENERIC = """
kind type sort name term word year date month day time century decade number amount percent
percentage country city place location person people group called named known used example way thing
else other happen say mean refer describe according located work famous think
"""
_SUPERLATIVES = """
most least fewest worst best first second third last only highest lowest largest smallest biggest
oldest youngest newest longest shortest earliest latest main primary original never always all every
entire exactly
"""
_DATED = """
january february march april may june july august september october november december century
"""
_COUNTS = """
one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred
thousand million billion half quarter dozen first second third
"""
_OPPOSITES = """
increase/decrease rise/fall rise/decline grow/shrink more/less more/fewer most/least most/fewest
many/few high/low higher/lower highest/lowest large/small larger/smaller largest/smallest big/small
long/short longer/shorter longest/shortest old/new older/newer oldest/newest old/young
oldest/youngest early/late earlier/later earliest/latest first/last before/after begin/end start/end
start/stop beginning/end north/south northern/southern east/west eastern/western up/down upper/lower
above/below top/bottom left/right inside/outside internal/external enter/leave arrive/leave
join/leave accept/reject accept/refuse agree/disagree allow/prohibit allow/prevent allow/forbid
permit/prohibit support/oppose win/lose won/lost gain/lose victory/defeat success/failure
succeed/fail good/bad better/worse best/worst positive/negative strong/weak stronger/weaker
rich/poor wealthy/poor public/private true/false legal/illegal same/different similar/different
male/female men/women man/woman boy/girl husband/wife father/mother son/daughter brother/sister
king/queen buy/sell open/close create/destroy build/destroy love/hate include/exclude import/export
maximum/minimum major/minor majority/minority hot/cold warm/cool wet/dry light/dark heavy/light
black/white fast/slow faster/slower easy/difficult hard/soft simple/complex common/rare
common/uncommon often/rarely always/never usually/rarely all/none present/absent birth/death
born/died live/die alive/dead past/future ancient/modern domestic/foreign rural/urban land/sea
ally/enemy friend/enemy attack/defend employer/employee teacher/student attract/repel push/pull
send/receive give/take remember/forget appear/disappear approve/disapprove able/unable
likely/unlikely popular/unpopular known/unknown important/unimportant successful/unsuccessful
expensive/cheap expand/contract raise/lower add/remove encourage/discourage deny/confirm near/far
close/distant empty/full thin/thick narrow/wide deep/shallow single/multiple oppose/favor
innate/adaptive save/spend
"""


def _spelt(text: str) -> frozenset[str]:
    """The words as written, and as an index spells them."""
    return frozenset(text.split()) | frozenset(words(text))


FUNCTION = _spelt(_FUNCTION)  # carry no content
GENERIC = _spelt(_GENERIC)  # say what kind of answer is wanted; a text that holds it seldom says so
SUPERLATIVES = _spelt(_SUPERLATIVES)  # single one thing out
DATED = _spelt(_DATED)
COUNTS = _spelt(_COUNTS)
OPPOSITES = tuple((pair.split("/")[0], pair.split("/")[1]) for pair in _OPPOSITES.split())
NEGATIVE_PREFIXES = ("un", "in", "im", "non", "dis", "ir", "anti")
