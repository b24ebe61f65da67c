"""What is wrong with how queries are shared out: collapse, experts of one task, tasks that starve.

The illnesses of gated experts are those of HoME (Wang et al., arXiv 2408.05430): an expert that is all but
silent, one that a single task has taken, and tasks that do without the expert that would serve them best.
Rows are what was routed, in the order in which it happened.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import ceil, exp, log
from typing import Any

from agentmtl.schema import SCHEMA_VERSION

HARDLY = 0.01  # share of the rows below which an expert is as good as dead
LEAST = 5  # rows of a task by an expert, from which their mean score counts
MARGIN = 0.05  # of mean score, by which another expert must be better for a task to starve
BINS = 10  # of confidence, equally wide


@dataclass(frozen=True, slots=True)
class Routed:
    """One query: who took it, and what is known beside. `task`: its task, cluster or kind; `score`: how good
    the answer was, 0 to 1; `cost` in US dollars; `conversation`: its id."""

    expert: str
    query: str = ""
    task: str = ""
    score: float | None = None
    cost: float | None = None
    confidence: float | None = None
    conversation: str = ""


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows of like confidence: how many, their mean confidence and their mean score."""

    rows: int
    confidence: float
    score: float


@dataclass(frozen=True, slots=True)
class ExpertShare:
    """One expert. `tasks`: rows by task; `entropy`: of these, 0 (one task) to 1 (all tasks alike). `score`,
    `cost`, `confidence` are means, None where no row tells. `calibration`: the mean distance of confidence
    and score over `bins`, by size."""

    name: str
    rows: int
    share: float
    tasks: dict[str, int]
    entropy: float
    score: float | None
    cost: float | None
    confidence: float | None
    calibration: float | None
    bins: tuple[Bin, ...] = ()
    registered: bool = True


@dataclass(frozen=True, slots=True)
class Starved:
    """A task whose best expert, by mean score, gets less than half of its rows."""

    task: str
    best: str
    score: float
    share: float
    usual: str
    usual_score: float


@dataclass(frozen=True, slots=True)
class RoutingReport:
    """`entropy`: of the experts' shares, 0 (one takes all) to 1 (all alike); `effective`: the number of
    experts that shares of this entropy amount to. `dead`: registered, never or hardly chosen. `single`:
    experts that one task alone uses, where there are several tasks. `switches`: changes of expert from a turn
    to the next, over `turns` such steps in `conversations`."""

    rows: int
    experts: tuple[ExpertShare, ...]
    entropy: float
    effective: float
    dead: tuple[str, ...]
    single: dict[str, str]
    starved: tuple[Starved, ...]
    conversations: int = 0
    turns: int = 0
    switches: int = 0
    registered: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """The form scripts rely on (`agentmtl experts report --json`)."""
        return {"schema": SCHEMA_VERSION, **asdict(self)}

    def to_text(self) -> str:
        """For people: a line an expert, then what is wrong."""
        lines = [
            f"{self.rows:,} routed; entropy {self.entropy:.2f}, as {self.effective:.1f} experts sharing alike"
        ]
        lines += [_line(expert) for expert in self.experts]
        lines += [f"dead: {name} is never or hardly chosen" for name in self.dead]
        lines += [f"one task: {name} is used by {task} alone" for name, task in self.single.items()]
        lines += [
            f"starved: {s.task} goes to {s.usual} ({s.usual_score:.2f}); {s.best} does better "
            f"({s.score:.2f}) and gets {s.share:.0%} of it"
            for s in self.starved
        ]
        if self.conversations:
            each = self.switches / self.conversations
            lines.append(
                f"switches: {self.switches} in {self.turns} further turns, {each:.1f} a conversation"
            )
        return "\n".join(lines)


def _line(expert: ExpertShare) -> str:
    told = {
        "score": expert.score, "confidence": expert.confidence, "calibration": expert.calibration,
        "usd": expert.cost,
    }  # fmt: skip
    known = "  ".join(f"{name} {value:.3g}" for name, value in told.items() if value is not None)
    away = "" if expert.registered else "  (not registered)"
    tasks = f"{len(expert.tasks)} tasks" if len(expert.tasks) > 1 else next(iter(expert.tasks), "")
    return (
        "  ".join(
            filter(None, (f"  {expert.share:6.1%}  {expert.name}", f"{expert.rows} rows", tasks, known))
        )
        + away
    )


def diagnose(rows: Sequence[Routed], registered: Sequence[str] = ()) -> RoutingReport:
    """The report over rows. `registered`: the experts that could have been chosen."""
    by_expert: dict[str, list[Routed]] = {name: [] for name in registered}
    for row in rows:
        by_expert.setdefault(row.expert, []).append(row)
    tasks = {row.task for row in rows if row.task}
    experts = [
        _share(name, mine, len(rows), len(tasks), not registered or name in registered)
        for name, mine in by_expert.items()
    ]
    experts.sort(key=lambda one: (-one.rows, one.name))
    nats = _entropy([one.rows for one in experts])
    conversations, turns, switches = _switches(rows)
    return RoutingReport(
        len(rows), tuple(experts), nats / log(len(experts)) if len(experts) > 1 else 0.0, exp(nats),
        tuple(one.name for one in experts if rows and one.name in registered and one.share < HARDLY),
        {one.name: next(iter(one.tasks)) for one in experts if len(one.tasks) == 1 and len(tasks) > 1},
        _starved(rows), conversations, turns, switches, tuple(registered),
    )  # fmt: skip


def _share(name: str, rows: Sequence[Routed], of: int, tasks: int, registered: bool) -> ExpertShare:
    mine = dict(Counter(row.task for row in rows if row.task).most_common())
    bins = _bins([(r.confidence, r.score) for r in rows if r.confidence is not None and r.score is not None])
    total = sum(one.rows for one in bins)
    return ExpertShare(
        name, len(rows), len(rows) / of if of else 0.0, mine,
        _entropy(list(mine.values())) / log(tasks) if tasks > 1 else 0.0,
        _mean([row.score for row in rows]), _mean([row.cost for row in rows]),
        _mean([row.confidence for row in rows]),
        sum(one.rows * abs(one.confidence - one.score) for one in bins) / total if total else None,
        bins, registered,
    )  # fmt: skip


def _bins(pairs: Sequence[tuple[float, float]]) -> tuple[Bin, ...]:
    """Those that hold rows, by rising confidence; equal confidences are in one."""
    parts: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for confidence, score in pairs:
        parts[max(ceil(confidence * BINS) - 1, 0)].append((confidence, score))
    return tuple(
        Bin(len(p), sum(c for c, _ in p) / len(p), sum(s for _, s in p) / len(p))
        for _, p in sorted(parts.items())
    )


def _mean(values: Sequence[float | None]) -> float | None:
    told = [value for value in values if value is not None]
    return sum(told) / len(told) if told else None


def _entropy(counts: Sequence[int]) -> float:
    """In nats."""
    total = sum(counts)
    return -sum(n / total * log(n / total) for n in counts if n) if total else 0.0


def _starved(rows: Sequence[Routed]) -> tuple[Starved, ...]:
    """Tasks that mostly go to another expert than the one that does best on them."""
    by_task: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.task and row.score is not None:
            by_task[row.task][row.expert].append(row.score)
    found = []
    for task, experts in sorted(by_task.items()):
        total = sum(map(len, experts.values()))
        known = {name: sum(s) / len(s) for name, s in experts.items() if len(s) >= LEAST}
        usual = max(sorted(experts), key=lambda name: len(experts[name]))
        if not known or usual not in known:
            continue
        best = max(sorted(known), key=lambda name: known[name])
        share = len(experts[best]) / total
        if known[best] > known[usual] + MARGIN and share < 0.5:
            found.append(Starved(task, best, known[best], share, usual, known[usual]))
    return tuple(found)


def _switches(rows: Sequence[Routed]) -> tuple[int, int, int]:
    """(conversations, turns after the first, changes of expert)."""
    last: dict[str, str] = {}
    turns = switches = 0
    for row in rows:
        if not row.conversation:
            continue
        if row.conversation in last:
            turns += 1
            switches += last[row.conversation] != row.expert
        last[row.conversation] = row.expert
    return len(last), turns, switches
