"""No path spends without its row or over its limit: a thousand random allocations, budgets and models."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from langchain_core.messages import BaseMessage

from agentmtl import Agent, Allocation, Budget, Index, Share
from agentmtl.agent.flow import flow
from agentmtl.agent.state import begun
from agentmtl.errors import BudgetExceededError
from agentmtl.experts.calling import Caller, Price
from agentmtl.experts.chat import ChatExpert
from agentmtl.experts.fake import FakeChatModel
from agentmtl.schema import Turn
from agentmtl.spending import Call, Ledger
from agentmtl.work import later, now
from tests.agent.chats import purpose_of

QUESTION = "Where was John Harrison born?"
RUNS, SEED = 1000, 20261125
AGGREGATORS = ("majority", "weighted", "best-of-n", "fuse", "refine")
SAID = {
    "sample": ("Foulby [1]", "Larvik [1]", "Foulby", "Paris [7]", "no answer", "[1]", "a b c d e f g h i j"),
    "hop": ("enough", "John Harrison", "flour", ""),
    "judge": ("yes", "no", "perhaps"),
    "rewrite": ("Where was John Harrison born?", ""),
}


class Counting(FakeChatModel):
    """Counts by itself what it was asked and what it wrote, apart from any ledger."""

    asked: int = 0
    tokens: int = 0

    def _generate(self, messages: list[BaseMessage], *args: object, **kwargs: object) -> object:  # type: ignore[override]
        result = super()._generate(messages, *args, **kwargs)  # type: ignore[arg-type]
        used = (result.llm_output or {})["token_usage"]
        self.asked += 1
        self.tokens += used["prompt_tokens"] + used["completion_tokens"]
        return result


def _model(random: Random) -> Counting:
    def reply(messages: Sequence[BaseMessage], number: int) -> str:
        return random.choice(SAID.get(purpose_of(messages), SAID["sample"]))

    return Counting(replies=reply)


def _allocation(random: Random) -> Allocation:
    shares = {"sample": Share("", random.choice((1, 2, 3, 5, 8)), random.choice(AGGREGATORS))}
    for stage in ("hop", "aggregate", "judge", "rewrite"):
        if random.random() < 0.5:
            shares[stage] = Share(random.choice(("chat", "chat", "" if stage == "judge" else "chat")),
                                  random.choice((0, 1, 2, 3) if stage == "hop" else (1, 2, 3)))  # fmt: skip
    return Allocation(shares)


def _budget(random: Random) -> Budget:
    return Budget(
        calls=random.choice((None, None, 0, 1, 2, 3, 5, 9)),
        tokens=random.choice((None, None, None, 150, 300, 700, 2000)),
        usd=random.choice((None, None, 0.0001, 0.001)),
    )


@pytest.mark.parametrize("parallel", [False, True], ids=["one request", "a request a sample"])
async def test_no_allocation_spends_more_than_its_budget(
    index: Index, parallel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Caller, "many", not parallel)
    random, refused, over = Random(SEED + parallel), 0, {"calls": 0, "tokens": 0, "rows": 0}
    price = Price(1.0, 3.0)
    for number in range(RUNS // 2):
        model, budget, rows = _model(random), _budget(random), list[Call]()
        expert = ChatExpert(Caller(model, "chat", price=price, max_tokens=random.choice((2, 8, 30))))
        agent = Agent(index, expert=expert, allocation=_allocation(random), hops=random.choice((1, 2, 3)))
        turns = [Turn("Who built the H4?", "John Harrison")] if random.random() < 0.3 else []
        ledger = Ledger(budget, on_call=rows.append)
        with ledger.active():
            try:
                work = flow(agent.stages(), begun(QUESTION, turns=turns))
                _ = await later(work) if number % 4 == 0 else now(work)
            except BudgetExceededError:
                refused += 1
        over["calls"] += budget.calls is not None and model.asked > budget.calls
        over["tokens"] += budget.tokens is not None and model.tokens > budget.tokens
        made = [row for row in rows if not row.error]
        spent = ledger.spent
        over["rows"] += not (
            model.asked == len(made) == spent.calls
            and model.tokens == spent.prompt_tokens + spent.output_tokens
            and not {name: value for name, value in ledger.overshoot.items() if name != "seconds"}
        )
    print(f"seed {SEED + parallel}: {RUNS // 2} allocations, {refused} refused, over the limit {over}")
    assert over == {"calls": 0, "tokens": 0, "rows": 0}
    assert 0 < refused < 0.4 * RUNS
