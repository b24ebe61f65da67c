"""What can be said of the things in the synthetic world, and asked, in several ways.

In all templates {s} is the subject and {o} the object; in questions {s} alone. {y}, {p} and {r} are a year, a
person and a river that nothing asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

_OBJECTIVE = frozenset(
    {"of", "to", "by", "from", "in", "through", "built", "founded", "marry", "about", "with"}
)
_PRONOUNS = {
    "person": (("she", "her"), ("he", "him"), ("they", "them")),
    "town": (("it", "it"), ("that town", "that town"), ("the town", "the town")),
    "land": (("it", "it"), ("that country", "that country")),
    "river": (("it", "it"), ("that river", "that river")),
    "work": (("it", "it"),),
    "society": (("it", "it"),),
}


@dataclass(frozen=True, slots=True)
class Relation:
    """`noun` names the object by the subject, as in "the builder of {s}"; `search` is what to look up."""

    name: str
    subject: str
    object: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    noun: str
    search: str


def _relation(name: str, kinds: str, noun: str, search: str, said: str, asked: str) -> Relation:
    subject, found = kinds.split(" > ")
    return Relation(name, subject, found, tuple(said.split(" | ")), tuple(asked.split(" | ")), noun, search)


RELATIONS = (
    _relation(
        "born", "person > town", "the birthplace of {s}", "{s} born",
        "{s} was born in {o}. | {s} was born in {o}, a small town. | {s} was born in {o} in {y}. "
        "| {s} was born in {o}, a village by the river {r}. | {o} is the birthplace of {s}. "
        "| The birthplace of {s} is {o}. | {s} came to the world in {o}.",
        "Where was {s} born? | In which town was {s} born? | What is the birthplace of {s}?",
    ),
    _relation(
        "died", "person > town", "the town where {s} died", "{s} died",
        "{s} died in {o}. | {s} died in {o} in {y}. | {s} spent the last years in {o} and died there. "
        "| In {o} {s} died.",
        "Where did {s} die? | In which town did {s} die?",
    ),
    _relation(
        "birth year", "person > year", "the birth year of {s}", "{s} birth year",
        "{s} was born in {o}. | {s} was born in the year {o}. | The birth year of {s} is {o}.",
        "When was {s} born? | In which year was {s} born?",
    ),
    _relation(
        "trade", "person > trade", "the trade of {s}", "{s} trade",
        "{s} was a {o}. | {s} worked as a {o}. | By trade {s} was a {o}.",
        "What was the trade of {s}? | What did {s} work as?",
    ),
    _relation(
        "married", "person > person", "the person whom {s} married", "{s} married",
        "{s} married {o}. | {s} was married to {o}.",
        "Whom did {s} marry? | Who was married to {s}?",
    ),
    _relation(
        "built", "work > person", "the builder of {s}", "{s} built",
        "{s} was built by {o}. | {s} was built by {o} in {y}. | {o} built {s}. "
        "| The builder of {s} was {o}. | {o} was the builder of {s}.",
        "Who built {s}? | Who was the builder of {s}? | By whom was {s} built?",
    ),
    _relation(
        "opened", "work > year", "the year when {s} was opened", "{s} opened",
        "{s} was opened in {o}. | {s} was opened in {o} by the engineer {p}. | {s} opened in {o}. "
        "| In {o} {s} was opened.",
        "When was {s} opened? | In which year was {s} opened? | When did {s} open?",
    ),
    _relation(
        "stands", "work > town", "the town where {s} stands", "{s} stands",
        "{s} stands in {o}. | In {o} stands {s}. | {s} is found in {o}.",
        "Where does {s} stand? | In which town does {s} stand? | In which town is {s}?",
    ),
    _relation(
        "river", "town > river", "the river of {s}", "{s} river",
        "{s} lies on the river {o}. | {s} is a town on the river {o}. | The river {o} flows through {s}.",
        "On which river does {s} lie? | Which river flows through {s}? | On which river is {s}?",
    ),
    _relation(
        "land", "town > land", "the country of {s}", "{s} country",
        "{s} is a town in {o}. | {s} belongs to {o}. | {s} lies in the country {o}.",
        "In which country is {s}? | In which country does {s} lie? | Which country does {s} belong to?",
    ),
    _relation(
        "mayor", "town > person", "the mayor of {s}", "{s} mayor",
        "The mayor of {s} is {o}. | {o} is the mayor of {s}. | {s} has a mayor, {o}.",
        "Who is the mayor of {s}?",
    ),
    _relation(
        "people", "town > number", "the number of people in {s}", "{s} people",
        "{s} has {o} people. | {o} people live in {s}.",
        "How many people live in {s}? | How many people does {s} have?",
    ),
    _relation(
        "capital", "land > town", "the capital of {s}", "{s} capital",
        "The capital of {s} is {o}. | {o} is the capital of {s}. | {s} has the capital {o}.",
        "What is the capital of {s}? | Which town is the capital of {s}?",
    ),
    _relation(
        "sea", "river > town", "the town where {s} meets the sea", "{s} sea",
        "The river {s} meets the sea at {o}. | {s} flows into the sea at {o}.",
        "Where does {s} meet the sea? | At which town does {s} meet the sea?",
    ),
    _relation(
        "length", "river > number", "the length of {s}", "{s} length",
        "{s} is {o} km long. | The river {s} has a length of {o} km.",
        "How long is {s}? | What is the length of {s}?",
    ),
    _relation(
        "founded", "society > person", "the founder of {s}", "{s} founder",
        "{s} was founded by {o}. | {s} was founded by {o} in {y}. | {o} founded {s}. "
        "| The founder of {s} was {o}.",
        "Who founded {s}? | Who was the founder of {s}?",
    ),
    _relation(
        "seat", "society > town", "the seat of {s}", "{s} seat",
        "{s} has its seat in {o}. | The seat of {s} is {o}.",
        "Where does {s} have its seat? | What is the seat of {s}?",
    ),
)  # fmt: skip
OF_KIND = {
    kind: tuple(relation for relation in RELATIONS if relation.subject == kind)
    for kind in dict.fromkeys(relation.subject for relation in RELATIONS)
}


def coined(random: Random, word: str) -> Relation:
    """A relation that is named by a made-up word: what was asked can only be told by finding the word."""
    subject = random.choice(("work", "person", "town", "society"))
    found = random.choice(("person", "town", "year", "word"))
    if found == "person" and random.random() < 0.5:
        said, query = "{s} was W by {o}. | {o} W {s}.", "Who W {s}? | By whom was {s} W?"
        said, query = said.replace("W", f"{word}ed"), query.replace("W", f"{word}ed")
    elif found in ("town", "year") and random.random() < 0.5:
        said = f"{{s}} was {word}ed in {{o}}. | In {{o}} {{s}} was {word}ed."
        query = f"{'Where' if found == 'town' else 'When'} was {{s}} {word}ed?"
    else:
        said = f"The {word} of {{s}} is {{o}}. | {{o}} is the {word} of {{s}}."
        query = f"What is the {word} of {{s}}? | Which is the {word} of {{s}}?"
    return _relation(word, f"{subject} > {found}", f"the {word} of {{s}}", f"{{s}} {word}", said, query)


def asked(random: Random, relation: Relation, subject: str) -> str:
    return sentence(random.choice(relation.questions).format(s=subject))


def asked_shortly(random: Random, relation: Relation) -> tuple[str, str]:
    """A question with a pronoun for the subject, and the template that it came from."""
    template = random.choice(relation.questions)
    nominative, objective = random.choice(_PRONOUNS[relation.subject])
    before = template.split("{s}")[0].split()
    word = objective if before and before[-1] in _OBJECTIVE else nominative
    return sentence(template.format(s=word)), template


def sentence(text: str) -> str:
    """With a capital at its start."""
    return text[:1].upper() + text[1:]
