"""Examples of routing: experts with cards, a request, and the letter of the expert that it suits.

In requests {t} is a town, {p} a person, {n} and {m} numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from tests.serving.tiny_model.answering import PROMPTS, Example
from tests.serving.tiny_model.relations import OF_KIND, asked, sentence
from tests.serving.tiny_model.world import World

_LEAST, _MOST = 2, 8  # experts that are offered
_COINED = 0.4  # of them are of made-up words
_CALLED = 0.15  # of the requests call an expert by name


@dataclass(frozen=True, slots=True)
class Kind:
    names: tuple[str, ...]
    cards: tuple[str, ...]
    requests: tuple[str, ...] = ()
    about: tuple[str, ...] = ()  # kinds of things of which questions are drawn


def _kind(names: str, cards: str, requests: str = "", about: str = "") -> Kind:
    return Kind(
        tuple(names.split(" | ")), tuple(cards.split(" | ")),
        tuple(requests.split(" | ")) if requests else (), tuple(about.split()),
    )  # fmt: skip


KINDS = (
    _kind(
        "tickets | support | helpdesk",
        "Support tickets: status, owner, history. | Answers questions about support tickets. "
        "| Help desk: who owns a ticket, whether it is open or closed.",
        "Who owns ticket {n}? | What is the status of ticket {n}? | When was ticket {n} opened? "
        "| Is ticket {n} closed? | Which tickets does {p} own? | Who closed ticket {n}?",
    ),
    _kind(
        "places | towns | geography",
        "Towns, rivers and countries: where they lie. | Places: towns, rivers, countries, capitals. "
        "| Geography, such as the river of a town or the capital of a country.",
        about="town land river",
    ),
    _kind(
        "people | lives | biography",
        "People: where and when they were born, what they did. | The lives of people. "
        "| Biography: birth, death, trade and marriage of a person.",
        about="person",
    ),
    _kind(
        "buildings | works | bridges",
        "Buildings and bridges: who built them, when they were opened. "
        "| Bridges, towers, mills and other works. | Buildings, their builders and their years.",
        about="work",
    ),
    _kind(
        "sums | arithmetic | calculator",
        "Sums and other arithmetic. | Calculates with numbers. | Arithmetic: adds, multiplies, divides.",
        "What is {n} plus {m}? | How much is {n} times {m}? | Add {n} and {m}. | What is {n} minus {m}? "
        "| Divide {n} by {m}. | What is {m} percent of {n}?",
    ),
    _kind(
        "translation | translator | languages",
        "Translates between languages. | Translation into German, French and Spanish. "
        "| Languages: says a text in another one.",
        "Translate into French: {t} is cold in winter. | How does one say bridge in German? "
        "| What is the Spanish word for river? | Translate this letter of {p} into German. "
        "| Say good morning in French.",
    ),
    _kind(
        "weather | forecast",
        "The weather: rain, wind, temperature. | Forecasts of the weather in any town. "
        "| Tells whether it will rain or snow.",
        "Will it rain in {t} tomorrow? | How warm is it in {t} today? | Is there snow in {t}? "
        "| What is the weather like in {t}? | How strong is the wind in {t} now?",
    ),
    _kind(
        "cooking | recipes | kitchen",
        "Recipes and cooking. | What to cook, and how. | The kitchen: dishes, ingredients, baking times.",
        "How do I bake bread? | What can I cook with {n} eggs? | How long does rice have to boil? "
        "| Give me a recipe for apple cake. | Which ingredients does a fish soup need?",
    ),
    _kind(
        "code | programming | software",
        "Writes and explains program code. | Programming in Python and other languages. "
        "| Software: functions, bugs, tests.",
        "Write a Python function that adds {n} to a list. | Why does this program crash with error {n}? "
        "| How do I sort a list in Python? | Explain this line of code. | Write a test for this function.",
    ),
    _kind(
        "music | songs",
        "Music: songs, bands and composers. | Songs and who sings them. | Plays and explains music.",
        "Who sings this song? | Play a song by {p}. | Which band made the album {t}? "
        "| Who composed the opera {t}? | What are the words of that song?",
    ),
    _kind(
        "travel | trips | tickets for trains",
        "Trains, flights and hotels. | Plans trips and books hotels. | Travel: connections, fares, rooms.",
        "Book a hotel in {t} for {n} nights. | When does the next train to {t} leave? "
        "| How much is a flight from {t} to the capital? | Find me a room in {t}. | Plan a trip to {t}.",
    ),
    _kind(
        "health | medicine | doctor",
        "Health: illness, medicine, first aid. | Medical questions. | Symptoms and what helps against them.",
        "What helps against a cold? | I have had a headache for {n} days. "
        "| Is this medicine safe for children? | What are the symptoms of the flu? "
        "| How much water should I drink a day?",
    ),
    _kind(
        "money | bank | banking",
        "Bank accounts, cards and payments. | Money: balances, transfers, loans. "
        "| Banking: accounts and credit cards.",
        "What is the balance of my account? | Transfer {n} euros to {p}. | My credit card was stolen. "
        "| How high is the interest on a loan? | Pay the bill of {p}.",
    ),
    _kind(
        "calendar | meetings | appointments",
        "Meetings and appointments. | The calendar: what is planned, and when. "
        "| Arranges meetings and reminds of them.",
        "When is my meeting with {p}? | Remind me to call {p} tomorrow. | Move my appointment to Friday. "
        "| What is on my calendar today? | Arrange a meeting with {p} and {p}.",
    ),
)  # fmt: skip
OTHERS = _kind(
    "general | others | big | chat",
    "Everything else. | Anything that the others do not know. "
    "| Answers questions in its own words, from documents.",
)  # fmt: skip


def route(world: World, most: int) -> Example:
    """Requests to one of several experts; at times one is there for all that the others are not for."""
    draw = world.random
    offered = [_kind_of(world, kind) for kind in draw.sample(KINDS, draw.randint(_LEAST, _MOST))]
    if draw.random() < 0.25:
        offered[0] = OTHERS
    draw.shuffle(offered)
    names = [draw.choice(kind.names) for kind in offered]
    experts = [
        {"letter": letter, "name": name, "card": draw.choice(kind.cards)}
        for letter, name, kind in zip(ascii_uppercase, names, offered, strict=False)
    ]
    system = PROMPTS.render("route-system", experts=experts)
    first, target = _asked(world, offered, names)
    steps = (_asked, _asked, _letter_of, _named)
    more = [draw.choice(steps)(world, offered, names) for _ in range(draw.randint(1, 8))]
    messages = ({"role": "system", "content": system}, {"role": "user", "content": first})
    return Example("route", messages, target, tuple(more))


def _asked(world: World, offered: Sequence[Kind], names: Sequence[str]) -> tuple[str, str]:
    """A request and the letter of the expert; at times the request calls the expert by name."""
    target = world.random.choice(offered)
    if OTHERS in offered and world.random.random() < 0.3:
        target = OTHERS
    unwanted = [kind for kind in KINDS if kind not in offered]
    request = _request(world, world.random.choice(unwanted) if target is OTHERS else target)
    at = offered.index(target)
    if world.random.random() < _CALLED:
        request = f"{names[at]}: {request}"
    return PROMPTS.render("route-user", question=request), ascii_uppercase[at]


def _letter_of(world: World, offered: Sequence[Kind], names: Sequence[str]) -> tuple[str, str]:
    """A step on the way: from a name to its letter."""
    at = world.random.randrange(len(names))
    return f"Letter of {names[at]}:", ascii_uppercase[at]


def _named(world: World, offered: Sequence[Kind], names: Sequence[str]) -> tuple[str, str]:
    """A step on the way: the expert's name before its letter."""
    request, letter = _asked(world, offered, names)
    name = names[ascii_uppercase.index(letter)]
    return request.replace("Expert:", "Name and letter:"), f"{name}, {letter}"


def _kind_of(world: World, kind: Kind) -> Kind:
    """The kind, or one of made-up words in its place: what it is for is told by the same words alone."""
    if world.random.random() > _COINED:
        return kind
    word, other = world.names.word(), world.names.word()
    return Kind(
        (word, other, world.names.word()),
        (
            f"All about {word} and {other}.",
            f"The {word}, the {other}.",
            f"{sentence(word)}: {other} and more.",
        ),
        (
            f"What is the {word} of {{p}}?",
            f"Tell me about the {other} in {{t}}.",
            f"How much {word} is there?",
        ),
    )


def _request(world: World, kind: Kind) -> str:
    if kind.about:
        relation = world.random.choice([r for about in kind.about for r in OF_KIND[about]])
        return asked(world.random, relation, world.named(relation.subject))
    numbers = {"n": world.random.randint(2, 9999), "m": world.random.randint(2, 99)}
    return world.random.choice(kind.requests).format(p=world.names.person(), t=world.names.town(), **numbers)
