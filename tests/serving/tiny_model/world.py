"""Facts of the synthetic world and documents that state them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from agentmtl.experts.prompting import Block, quoted
from tests.serving.tiny_model.names import Names
from tests.serving.tiny_model.relations import OF_KIND, RELATIONS, Relation, coined, sentence

_T = TypeVar("_T")
_FILLERS = (
    "The market is held every week.", "Many visitors come in summer.", "It is well known.",
    "Little else is known.", "There is a small museum.", "The winters are cold there.",
    "Much was written about it.", "A festival takes place in spring.", "The records were lost in a fire.",
    "Some letters have survived.", "It was repaired twice.", "The roof was mended later.",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fact:
    relation: Relation
    subject: str
    object: str


@dataclass(frozen=True, slots=True)
class Page:
    """A document before it is numbered."""

    title: str
    text: str
    facts: tuple[Fact, ...]


class World:
    """Makes facts and documents. A share `strange` of the names and relations is of made-up words."""

    def __init__(self, random: Random, held_out: bool, strange: float = 0.1) -> None:
        self.random, self._strange = random, strange
        self.names = Names(random, held_out, strange)

    def named(self, kind: str) -> str:
        """A new name of a kind: a person, a town, a year …"""
        return str(getattr(self.names, kind)())

    def fact(self, relation: Relation | None = None, subject: str | None = None) -> Fact:
        relation = relation or self._relation()
        return Fact(relation, subject or self.named(relation.subject), self.named(relation.object))

    def _relation(self) -> Relation:
        if self.random.random() < self._strange:
            return coined(self.random, self.names.word())
        return self.random.choice(RELATIONS)

    def chain(self) -> tuple[Fact, Fact]:
        """Two facts, the second about the object of the first."""
        first = self.random.choice([r for r in RELATIONS if r.object in OF_KIND])
        head = self.fact(first)
        return head, self.fact(self.random.choice(OF_KIND[first.object]), head.object)

    def others(self, fact: Fact, most: int = 2) -> list[Fact]:
        """More about the same subject."""
        about = [r for r in OF_KIND[fact.relation.subject] if r.name != fact.relation.name]
        chosen = self.random.sample(about, min(len(about), self.random.randint(0, most)))
        return [self.fact(relation, fact.subject) for relation in chosen]

    def page(self, facts: Sequence[Fact]) -> Page:
        """A document about the subject of the first fact."""
        said = [self.stated(fact, n > 0) for n, fact in enumerate(facts)]
        if self.random.random() < 0.3:
            said.insert(self.random.randint(0, len(said)), self._filler())
        return Page(self._title(facts[0].subject), " ".join(said), tuple(facts))

    def pages(self, needed: Sequence[Fact], count: int) -> list[Page]:
        """`count` documents in random order, among which those that state the needed facts."""
        pages = [self.page(self._shuffled([fact, *self.others(fact)])) for fact in needed]
        while len(pages) < count:
            like = self.random.choice(needed).relation if self.random.random() < 0.6 else None
            fact = self.fact(like)
            pages.append(self.page(self._shuffled([fact, *self.others(fact)])))
        return self._shuffled(pages)

    def stated(self, fact: Fact, later: bool) -> str:
        """The fact in a sentence; a later one of a document may use a pronoun."""
        templates, subject = fact.relation.statements, fact.subject
        leading = tuple(t for t in templates if t.startswith("{s}"))
        if later and leading and fact.relation.subject == "person" and self.random.random() < 0.15:
            templates, subject = leading, self.random.choice(("she", "he"))
        template = self.random.choice(templates)
        extra = {"y": "year", "p": "person", "r": "river"}
        more = {mark: self.named(kind) for mark, kind in extra.items() if f"{{{mark}}}" in template}
        return sentence(template.format(s=subject, o=self._decorated(fact), **more))

    def _filler(self) -> str:
        """A sentence that answers nothing, at times in words that there are not."""
        if self.random.random() > 4 * self._strange:
            return self.random.choice(_FILLERS)
        words = [self.names.word() for _ in range(self.random.randint(2, 6))]
        return sentence(" ".join(words)) + "."

    def _decorated(self, fact: Fact) -> str:
        """At times "the clockmaker Mira Holm"."""
        if fact.relation.object == "person" and self.random.random() < 0.1:
            return f"the {self.names.trade()} {fact.object}"
        return fact.object

    def _title(self, subject: str) -> str:
        if self.random.random() < 0.15:
            return ""
        title = subject.removeprefix("the ")
        noun, _, name = title.partition(" of ")
        return f"{name} {noun}" if name and self.random.random() < 0.5 else sentence(title)

    def _shuffled(self, things: Sequence[_T]) -> list[_T]:
        return self.random.sample(list(things), len(things))


def blocks_of_pages(pages: Sequence[Page]) -> list[Block]:
    """As `agentmtl.experts.prompting.blocks_of` makes them of hits."""
    return [Block(n, quoted(page.title), quoted(page.text)) for n, page in enumerate(pages, 1)]


def number_of(pages: Sequence[Page], fact: Fact) -> int:
    """The number of the document that states the fact."""
    return next(n for n, page in enumerate(pages, 1) if fact in page.facts)


def nonce(random: Random) -> str:
    """As `agentmtl.experts.prompting.nonce_for` draws one, from a seed."""
    return f"{random.getrandbits(64):016x}"
