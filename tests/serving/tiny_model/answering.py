"""Examples of answering from documents, and of what follows it: repairs, fusing, refining, judging."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from agentmtl.experts.chat import NO_ANSWER
from agentmtl.experts.prompting import Prompts
from agentmtl.schema import Demonstration
from agentmtl.tasks import Task
from tests.serving.tiny_model.relations import OF_KIND, asked
from tests.serving.tiny_model.world import Fact, Page, World, blocks_of_pages, nonce, number_of

Message = dict[str, str]
PROMPTS = Prompts()
_CARDS = (
    Task("facts", "answer", instruction="Answer from the documents, with the name alone."),
    Task("towns", "answer", instruction="Say which name or number the question asks for.",
         avoid=("whole sentences",)),
    Task("short", "answer", definition="Questions about people and places."),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Example:
    """What is sent and what should come back. `kind`: the name under which it is measured. `more`: questions
    and answers that follow in the same conversation; they are trained on, and not measured."""

    kind: str
    messages: tuple[Message, ...]
    target: str
    more: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with documents. `answer`: what they say, "" where they do not; `number`: the document that
    says it; `wrong`: names of the same kind that stand in the documents too."""

    question: str
    pages: tuple[Page, ...]
    answer: str
    number: int
    wrong: tuple[str, ...]

    @property
    def target(self) -> str:
        return f"{self.answer} [{self.number}]" if self.answer else NO_ANSWER


def one_hop(world: World, most: int, fact: Fact | None = None) -> Asked:
    """A question that a single document answers; there are up to `most` documents."""
    fact = fact or world.fact()
    pages = world.pages([fact], world.random.randint(1, most))
    return _about(fact, asked(world.random, fact.relation, fact.subject), pages)


def two_hops(world: World, most: int) -> Asked:
    """A question whose subject is named by another document: "Where was the builder of … born?"."""
    first, second = world.chain()
    pages = world.pages([first, second], world.random.randint(2, max(2, most)))
    named = first.relation.noun.format(s=first.subject)
    return _about(second, asked(world.random, second.relation, named), pages)


def unanswered(world: World, most: int, fact: Fact | None = None) -> Asked:
    """A question that the documents do not answer: another subject, or another relation of the same."""
    fact = fact or world.fact()
    if world.random.random() < 0.5 and len(OF_KIND[fact.relation.subject]) > 1:
        others = [r for r in OF_KIND[fact.relation.subject] if r.name != fact.relation.name]
        shown = world.fact(world.random.choice(others), fact.subject)
    else:
        shown = world.fact(fact.relation)
    pages = [page for page in world.pages([shown], world.random.randint(1, most)) if not _says(page, fact)]
    pages = pages or [world.page([shown])]
    wrong = {f.object for page in pages for f in page.facts if f.relation.object == fact.relation.object}
    return Asked(asked(world.random, fact.relation, fact.subject), tuple(pages), "", 0, tuple(sorted(wrong)))


def _says(page: Page, fact: Fact) -> bool:
    return any(f.subject == fact.subject and f.relation == fact.relation for f in page.facts)


def any_question(world: World, most: int) -> Asked:
    draw = world.random.random()
    return (one_hop if draw < 0.65 else unanswered if draw < 0.85 else two_hops)(world, most)


def answer(world: World, most: int, kind: str = "") -> Example:
    make = {"one hop": one_hop, "two hops": two_hops, "no answer": unanswered}
    kind = kind or world.random.choices(list(make), (6, 2, 2))[0]
    it = make[kind](world, most)
    return Example(f"answer: {kind}", answer_messages(world.random, it), it.target, _more(world, it.pages))


def _more(world: World, pages: Sequence[Page]) -> tuple[tuple[str, str], ...]:
    """Further questions about the same documents: most of what a prompt costs is its documents."""
    known = [(n, fact) for n, page in enumerate(pages, 1) for fact in page.facts]
    told = []
    for number, fact in world.random.sample(known, min(len(known), world.random.randint(0, 6))):
        said = f"{fact.object} [{number}]"
        if world.random.random() < 0.15:
            fact, said = world.fact(fact.relation), NO_ANSWER
        question = asked(world.random, fact.relation, fact.subject)
        told.append((f"Question: {question}\nAnswer:", said))
    return tuple(told)


def answer_messages(random: Random, it: Asked) -> tuple[Message, ...]:
    fence = nonce(random)
    task = random.choice(_CARDS) if random.random() < 0.05 else None
    shown = [Demonstration("facts", "Who built the Old Mill?", "Ann Lee")] if random.random() < 0.03 else []
    return (
        _said("system", PROMPTS.render("answer-system", task=task, nonce=fence)),
        _said("user", PROMPTS.render(
            "answer-user", blocks=blocks_of_pages(it.pages), question=it.question, demonstrations=shown,
            nonce=fence,
        )),
    )  # fmt: skip


def evidence(world: World, most: int) -> Example:
    """The question alone, after a system message that holds the documents, as the middleware sends it."""
    it = any_question(world, most)
    system = PROMPTS.render(
        "evidence-system", blocks=blocks_of_pages(it.pages), demonstrations=[], nonce=nonce(world.random)
    )
    more = tuple(
        (question.removeprefix("Question: ").removesuffix("\nAnswer:"), said)
        for question, said in _more(world, it.pages)
    )
    return Example("evidence", (_said("system", system), _said("user", it.question)), it.target, more)


def repair(world: World, most: int) -> Example:
    """The answer again after one without a mark or with one of no document."""
    it = one_hop(world, most)
    count = len(it.pages)
    said, problem = it.answer, "it names no document"
    if world.random.random() < 0.5:
        said, problem = f"{it.answer} [{count + 2}]", f"there is no document {count + 2}"
    again = PROMPTS.render("repair-user", problem=problem, count=count)
    first = answer_messages(world.random, it)
    return Example("repair", (*first, _said("assistant", said), _said("user", again)), it.target)


def fuse(world: World, most: int) -> Example:
    """Several answers, of which the documents support one at most."""
    it = any_question(world, most)
    drafts = [it.target if it.answer else _false(world, it) for _ in range(world.random.randint(1, 2))]
    drafts += [_false(world, it) for _ in range(world.random.randint(0, 2))]
    world.random.shuffle(drafts)
    fence = nonce(world.random)
    user = PROMPTS.render(
        "fuse-user", blocks=blocks_of_pages(it.pages), drafts=_bare(world.random, drafts),
        question=it.question, nonce=fence,
    )  # fmt: skip
    return Example("fuse", (_system(fence), _said("user", user)), it.target)


def refine(world: World, most: int) -> Example:
    """A draft, right or wrong."""
    it = any_question(world, most)
    draft = it.target if world.random.random() < 0.5 else _false(world, it)
    fence = nonce(world.random)
    user = PROMPTS.render(
        "refine-user", blocks=blocks_of_pages(it.pages), drafts=_bare(world.random, [draft]),
        question=it.question, nonce=fence,
    )  # fmt: skip
    return Example("refine", (_system(fence), _said("user", user)), it.target)


def judge(world: World, most: int) -> Example:
    """Whether an answer is what the documents say."""
    it = any_question(world, most)
    right = bool(it.answer) and world.random.random() < 0.5
    shown = it.target if right else _false(world, it)
    fence = nonce(world.random)
    user = PROMPTS.render(
        "judge-user", blocks=blocks_of_pages(it.pages), answer=_bare(world.random, [shown])[0],
        question=it.question, nonce=fence,
    )  # fmt: skip
    system = _said("system", PROMPTS.render("judge-system", nonce=fence))
    return Example("judge", (system, _said("user", user)), "yes" if right else "no")


def _about(fact: Fact, question: str, pages: Sequence[Page]) -> Asked:
    kind = fact.relation.object
    same = {f.object for page in pages for f in page.facts if f.relation.object == kind}
    return Asked(
        question, tuple(pages), fact.object, number_of(pages, fact), tuple(sorted(same - {fact.object}))
    )


def _false(world: World, it: Asked) -> str:
    """A wrong answer: most times something that the documents speak of."""
    everything = sorted({f.object for page in it.pages for f in page.facts} - {it.answer})
    among = it.wrong or tuple(everything)
    name = world.random.choice(among) if among and world.random.random() < 0.85 else world.named("town")
    return f"{name} [{world.random.randint(1, len(it.pages))}]"


def _bare(random: Random, drafts: Sequence[str]) -> list[str]:
    """The drafts, all without their marks; rarely all with them."""
    bare = random.random() < 0.9
    return [draft.split(" [")[0] if bare else draft for draft in drafts]


def _system(fence: str) -> Message:
    return _said("system", PROMPTS.render("answer-system", task=None, nonce=fence))


def _said(role: str, content: str) -> Message:
    return {"role": role, "content": content}
