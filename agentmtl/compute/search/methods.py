"""The searchers by their names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from agentmtl.compute.pipeline import Pipeline
from agentmtl.compute.search.base import Searcher, Setup
from agentmtl.compute.search.ideas import Chat, Proposer, WithIdeas
from agentmtl.compute.search.landscape import LandscapeSearch
from agentmtl.compute.search.language import LanguageSearch
from agentmtl.compute.search.racing import RacingSearch
from agentmtl.errors import UsageError

Make: TypeAlias = Callable[[Setup], Searcher]

LANGUAGE = ("zero-shot", "agent-tts")
METHODS = (
    "racing", "landscape", "nested", "random", "equal-split", "best-uniform", "tpe", "gp", "evolution",
    "coordinate", "brute-force", *LANGUAGE,
)  # fmt: skip


def default_method(pipeline: Pipeline) -> str:
    """The method for a pipeline: racing where its stages vote and can be measured apart."""
    apart = pipeline.combine != "end" and all(s.aggregator == "majority" for s in pipeline.stages)
    return "racing" if apart else "landscape"


def make_searcher(method: str, setup: Setup, chat: Chat | None = None) -> Searcher:
    """The searcher of that name. With a chat model, racing and landscape look at what it proposes too.

    Raises UsageError for an unknown one, one that needs a chat model where none is given, or a pipeline that
    it cannot search.
    """
    if method in LANGUAGE:
        if chat is None:
            raise UsageError(f"The method {method} asks a chat model.", "Name one with --llm.")
        return LanguageSearch(setup, chat, zero_shot=method == "zero-shot")
    if method not in METHODS:
        raise UsageError(f"There is no method {method!r}.", f"Use one of: {', '.join(METHODS)}.")
    made = _maker(method)(setup)
    if chat is not None and isinstance(made, RacingSearch | LandscapeSearch):
        return WithIdeas(made, Proposer(setup.space, max(setup.budgets), chat))
    return made


def _maker(method: str) -> Make:
    from agentmtl.compute.search import bayesian, coordinate, evolution, nested, simple

    makers: dict[str, Make] = {
        "racing": RacingSearch,
        "landscape": LandscapeSearch,
        "nested": nested.NestedKnapsack,
        "random": simple.random_search,
        "equal-split": simple.EqualSplit,
        "best-uniform": simple.best_uniform,
        "tpe": bayesian.OptunaSearch,
        "gp": lambda setup: bayesian.OptunaSearch(setup, "gp"),
        "evolution": evolution.Evolution,
        "coordinate": coordinate.CoordinateAscent,
        "brute-force": simple.brute_force,
    }
    return makers[method]
