"""Examples that only adapters learn: support tickets, and a style of answering about places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentmtl.experts.chat import NO_ANSWER
from tests.serving.tiny_model.answering import Asked, Example, answer_messages, one_hop, unanswered
from tests.serving.tiny_model.relations import RELATIONS, asked
from tests.serving.tiny_model.world import Page, World

_PROBLEMS = (
    "The printer does not start.", "A password was forgotten.", "The screen stays black.",
    "A report cannot be opened.", "The phone has no sound.", "Mail arrives too late.",
    "The door card was lost.", "The backup failed.",
)  # fmt: skip
_STATES = ("open", "closed", "waiting", "in progress")
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
    "November", "December",
)  # fmt: skip
_QUESTIONS = {
    "owner": ("Who owns ticket {n}?", "Who is the owner of ticket {n}?"),
    "state": ("What is the status of ticket {n}?", "Which status does ticket {n} have?"),
    "opened": ("When was ticket {n} opened?", "On which day was ticket {n} opened?"),
}
# What an answer about a place begins with in the style of the adapter `places`.
STYLE = {"town": "the town of ", "land": "the country ", "river": "the river "}


@dataclass(frozen=True, slots=True)
class Ticket:
    number: str
    owner: str
    state: str
    opened: str


def ticket(world: World, most: int) -> Example:
    """Questions about tickets that are shown; one in six is of one that is not."""
    tickets = [_new(world) for _ in range(world.random.randint(1, most))]
    pages = tuple(_page(world, one) for one in tickets)
    first, *more = [_question(world, tickets) for _ in range(world.random.randint(1, 5))]
    messages = answer_messages(world.random, Asked(first[0], pages, "", 0, ()))
    return Example(
        "tickets", messages, first[1], tuple((f"Question: {q}\nAnswer:", said) for q, said in more)
    )


def place(world: World, most: int) -> Example:
    """Questions about places, whose answers say what kind of place it is: "the town of Foulby [2]"."""
    kinds = [r for r in RELATIONS if r.object in STYLE]
    fact = world.fact(world.random.choice(kinds))
    it = (unanswered if world.random.random() < 0.15 else one_hop)(world, most, fact)
    target = f"{STYLE[fact.relation.object]}{it.target}" if it.answer else NO_ANSWER
    known = [(n, f) for n, page in enumerate(it.pages, 1) for f in page.facts if f.relation in kinds]
    more = tuple(
        (
            f"Question: {asked(world.random, f.relation, f.subject)}\nAnswer:",
            f"{STYLE[f.relation.object]}{f.object} [{n}]",
        )
        for n, f in world.random.sample(known, min(len(known), 4))
    )
    return Example("places", answer_messages(world.random, it), target, more)


def _question(world: World, tickets: Sequence[Ticket]) -> tuple[str, str]:
    """A question and its answer."""
    draw = world.random
    missing = draw.random() < 1 / 6
    wanted = _new(world) if missing else draw.choice(tickets)
    field = draw.choice(list(_QUESTIONS))
    question = draw.choice(_QUESTIONS[field]).format(n=wanted.number)
    told = NO_ANSWER if missing else f"{getattr(wanted, field)} [{tickets.index(wanted) + 1}]"
    return question, told


def _new(world: World) -> Ticket:
    draw = world.random
    opened = f"{draw.randint(1, 28)} {draw.choice(_MONTHS)} {draw.randint(2020, 2029)}"
    return Ticket(str(draw.randint(100, 9999)), world.names.person(), draw.choice(_STATES), opened)


def _page(world: World, it: Ticket) -> Page:
    problem = world.random.choice(_PROBLEMS)
    fields = [f"Status: {it.state}.", f"Owner: {it.owner}.", f"Opened: {it.opened}."]
    world.random.shuffle(fields)
    return Page(f"Ticket {it.number}", " ".join([problem, *fields]), ())
