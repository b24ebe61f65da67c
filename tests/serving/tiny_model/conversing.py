"""Examples of rewriting a question, of saying what to look up next, and of writing JSON."""

from __future__ import annotations

import json

from agentmtl.experts.prompting import quoted
from tests.serving.tiny_model.answering import PROMPTS, Example, Message
from tests.serving.tiny_model.relations import OF_KIND, Relation, asked, asked_shortly, sentence
from tests.serving.tiny_model.world import Fact, World, blocks_of_pages, nonce

ENOUGH = "enough"


def rewrite(world: World, most: int) -> Example:
    """ "Where was she born?" after talk of Mira Holm: "Where was Mira Holm born?"."""
    talk = [world.fact() for _ in range(world.random.randint(1, 3))]
    last = talk[-1]
    subject, relation = _spoken_of(world, last)
    if world.random.random() < 0.15:
        fact = world.fact()
        question = target = asked(world.random, fact.relation, fact.subject)
    else:
        question, template = asked_shortly(world.random, relation)
        target = sentence(template.format(s=subject))
    fence = nonce(world.random)
    turns = [
        {"question": asked(world.random, f.relation, f.subject), "answer": _told(world, f)} for f in talk
    ]
    system = PROMPTS.render("rewrite-system", nonce=fence)
    user = PROMPTS.render("rewrite-user", turns=turns, question=question, nonce=fence)
    return Example("rewrite", _messages(system, user), target)


def _spoken_of(world: World, last: Fact) -> tuple[str, Relation]:
    """Who or what the next question is about: the answer of the last turn or its subject, whichever the words
    "she" or "that river" can mean."""
    kinds = {last.relation.subject: last.subject}
    if last.relation.object in OF_KIND:
        kinds[last.relation.object] = last.object
    person = [kind for kind in kinds if kind == "person"]
    things = [kind for kind in kinds if kind != "person"]
    kind = world.random.choice(person or things[-1:])
    if person and things and world.random.random() < 0.5:
        kind = things[0]
    return kinds[kind], world.random.choice(OF_KIND[kind])


def _told(world: World, fact: Fact) -> str:
    marked = f"{fact.object} [{world.random.randint(1, 6)}]"
    return quoted(marked) if world.random.random() < 0.4 else fact.object


def hop(world: World, most: int) -> Example:
    """What to look up: the second thing of a chain, the first where not even that is known, or nothing."""
    first, second = world.chain()
    named = first.relation.noun.format(s=first.subject)
    question = asked(world.random, second.relation, named)
    ask_first = _search(first)
    case = world.random.choices(("bridge", "enough", "first", "one hop"), (5, 2, 1.5, 1.5))[0]
    searched = []
    if case == "first":
        shown, target = [world.fact(second.relation)], ask_first
    elif case == "bridge":
        shown, target = [first], _search(second)
        searched = [ask_first] if world.random.random() < 0.4 else []
    elif case == "enough":
        shown, target = [first, second], ENOUGH
        searched = [_search(second)] if world.random.random() < 0.6 else []
    else:
        fact = world.fact()
        known = world.random.random() < 0.5
        question = asked(world.random, fact.relation, fact.subject)
        shown, target = [fact if known else world.fact(fact.relation)], ENOUGH if known else _search(fact)
    pages = world.pages(shown, world.random.randint(len(shown), max(most, len(shown))))
    fence = nonce(world.random)
    system = PROMPTS.render("hop-system", nonce=fence)
    user = PROMPTS.render(
        "hop-user", blocks=blocks_of_pages(pages), question=question, searched=searched, nonce=fence
    )
    return Example("hop", _messages(system, user), target)


def _search(fact: Fact) -> str:
    return sentence(fact.relation.search.format(s=fact.subject.removeprefix("the ")))


def write_json(world: World, most: int) -> Example:
    """Name and another field from a sentence, as JSON."""
    relation = world.random.choice([r for r in OF_KIND["person"] if r.object != "trade"])
    fact = world.fact(relation)
    said = quoted(world.stated(fact, False))
    key = relation.object if relation.object != "person" else "spouse"
    user = f"Write name and {key} as JSON: {said}"
    return Example("json", ({"role": "user", "content": user},),
                   json.dumps({"name": fact.subject, key: fact.object}))  # fmt: skip


def _messages(system: str, user: str) -> tuple[Message, ...]:
    return ({"role": "system", "content": system}, {"role": "user", "content": user})
