"""A report of a tuning that a person reads: Markdown, a picture, and the same as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agentmtl.compute.difficulty import ByDifficulty
from agentmtl.compute.frontier import write_allocation
from agentmtl.compute.tuning import Tuned
from agentmtl.errors import StorageError, UsageError

ALLOCATION, REPORT, PICTURE, FIGURES = "allocation.toml", "report.md", "frontier.png", "report.json"
_SHOWN = 12  # points of the frontier in the Markdown


def write_report(
    folder: Path, tuned: Sequence[Tuned], leveled: ByDifficulty | None = None, average: float | None = None
) -> None:
    """The files of a report; of several methods the first is the one recommended. `leveled`: allocations by
    difficulty, which whoever reads the file then obeys; `average`: the allocation for all is the frontier's
    within that. Raises StorageError where they cannot be written."""
    first, by = tuned[0], leveled.to_json() if leveled else None
    within = None if average is None else first.frontier.resolve(average)
    alone = within.allocation if within else first.space.allocation(first.recommendation.choice)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_allocation(folder / ALLOCATION, alone, first.frontier, by)
        told = {**first.to_json(), "compared": [one.to_json() for one in tuned[1:]]}
        if within is not None:
            told["average"] = {"budget": average, "cost": within.cost, "quality": within.quality}
        if by is not None:
            told |= {"difficulty": {name: of for name, of in by.items() if name != "weights"}}
        (folder / FIGURES).write_text(json.dumps(told, indent=1), "utf-8")
        pictured = draw(folder / PICTURE, tuned)
        (folder / REPORT).write_text(markdown(tuned, pictured, leveled, average), "utf-8")
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror}.", "Give another --out.") from None


def read_figures(folder: Path) -> dict[str, Any]:
    """The figures of a report. Raises UsageError where there is none."""
    try:
        told: dict[str, Any] = json.loads((folder / FIGURES).read_text("utf-8"))
    except (OSError, ValueError):
        raise UsageError(f"There is no report in {folder}.", "Make one: agentmtl tune.") from None
    return told


def markdown(
    tuned: Sequence[Tuned],
    pictured: bool,
    leveled: ByDifficulty | None = None,
    average: float | None = None,
) -> str:
    """The report as text. `average`: what a query may cost on average, where that was asked for."""
    first = tuned[0]
    unit, best = first.space.pipeline.unit, first.recommendation
    lines = [
        f"# {first.space.pipeline.name}: where compute should go",
        "",
        f"Within {max(first.budgets):.4g} {unit} a query, `{first.method}` recommends:",
        "",
        *_table(["stage", "model", "samples"], _shares(first, best.choice)),
        "",
        f"- expected {first.space.pipeline.metric} {best.quality:.3f}, 90 % interval "
        f"[{best.low:.3f}, {best.high:.3f}]",
        f"- cost {first.space.cost(best.choice):.4g} {unit} a query",
        f"- as good for all that is known: {len(best.tied)}, of which this is the cheapest",
        f"- the search spent {first.spent:.4g} {unit} on {first.measured} measurements"
        + (f"; {first.failed} runs failed and count as 0" if first.failed else ""),
        "",
        *_within(first, average, leveled is not None),
        "## Frontier",
        "",
        *_table(["cost a query", "quality", "90 % interval", "configuration"], _frontier(first)),
        "",
    ]
    if pictured:
        lines += [f"![cost against quality]({PICTURE})", ""]
    if leveled is not None:
        lines += ["## By difficulty", "", *_by_difficulty(leveled, unit, first.space.pipeline.metric), ""]
    if len(tuned) > 1:
        rows = [_compared(one) for one in tuned]
        lines += [
            "## Methods compared",
            "",
            "The quality is each method's own estimate; one that takes the best raw score says too much.",
            "",
            *_table(["method", "estimated quality", "cost a query", "search cost", "configuration"], rows),
            "",
        ]
    return "\n".join(lines)


def draw(path: Path, tuned: Sequence[Tuned]) -> bool:
    """The frontier with its intervals, and how the searches went; False where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    first = tuned[0]
    unit, points = first.space.pipeline.unit, first.frontier.points
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    costs = [p.cost for p in points]
    low, high = ([getattr(p, name) for p in points] for name in ("low", "high"))
    left.fill_between(costs, low, high, step="post", alpha=0.2, label="90 % interval")
    left.step(costs, [p.quality for p in points], where="post", label=f"frontier ({first.method})")
    best = first.recommendation
    left.plot(first.space.cost(best.choice), best.quality, "o", color="black", label="recommended")
    left.axvline(max(first.budgets), linestyle=":", color="grey", label="budget")
    left.set(
        xscale="log", xlabel=f"Cost a query ({unit})", ylabel=first.space.pipeline.metric,
        title="What a budget buys",
    )  # fmt: skip
    for one in tuned:
        if one.steps:
            spent, quality = zip(*[(step.spent, step.quality) for step in one.steps], strict=True)
            right.step(spent, quality, where="post", label=one.method)
    right.set(
        xlabel=f"Spent on the search ({unit})", ylabel="Estimated quality of the recommendation",
        title="How the search went",
    )  # fmt: skip
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="lower right")
    figure.savefig(path, dpi=130)
    return True


def _shares(tuned: Tuned, choice: tuple[int, ...]) -> list[list[str]]:
    shares = tuned.space.allocation(choice).shares
    return [[name, share.model or "its own", str(share.samples)] for name, share in shares.items()]


def _short(tuned: Tuned, choice: tuple[int, ...]) -> str:
    return ", ".join(f"{name}: {model}×{samples}" for name, model, samples in _shares(tuned, choice))


def _frontier(tuned: Tuned) -> list[list[str]]:
    points = tuned.frontier.points
    every = max(len(points) // _SHOWN, 1)
    shown = [*points[:-1:every], points[-1]]
    rows = []
    for p in shown:
        numbers = [f"{p.cost:.4g}", f"{p.quality:.3f}", f"[{p.low:.3f}, {p.high:.3f}]"]
        rows.append([*numbers, _short(tuned, tuned.space.choice(p.allocation))])
    return rows


def _within(tuned: Tuned, average: float | None, leveled: bool) -> list[str]:
    """What the allocation file holds where it is not the recommendation above."""
    if average is None:
        return []
    point = tuned.frontier.resolve(average)
    rest = ", and where a question's difficulty is guessed what its level says" if leveled else ""
    return [
        f"**{ALLOCATION} is not that:** it keeps to {average:.4g} {tuned.space.pipeline.unit} a query on "
        f"average, with {_short(tuned, tuned.space.choice(point.allocation))} (quality {point.quality:.3f}, "
        f"cost {point.cost:.4g}) for all{rest}.",
        "",
    ]


def _by_difficulty(leveled: ByDifficulty, unit: str, metric: str) -> list[str]:
    last = len(leveled.allocations) - 1
    names = {0: "hardest", last: "easiest"}
    rows = [
        [
            names.get(level, str(level)),
            ", ".join(f"{n}: {s.model}×{s.samples}" for n, s in one.shares.items()),
        ]
        for level, one in enumerate(leveled.allocations)
    ]
    return [
        f"Expected {metric} {leveled.quality:.3f} at {leveled.cost:.4g} {unit} a query on average. Guesses "
        f"from the questions explain {leveled.difficulty.explained:.1%} of how hard left-out ones were.",
        "",
        *_table(["level", "configuration"], rows),
    ]  # fmt: skip


def _compared(tuned: Tuned) -> list[str]:
    best = tuned.recommendation
    numbers = [f"{best.quality:.3f}", f"{tuned.space.cost(best.choice):.4g}", f"{tuned.spent:.4g}"]
    return [tuned.method, *numbers, _short(tuned, best.choice)]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows)]


def summary(told: Mapping[str, Any]) -> list[str]:
    """Lines for a terminal, of the figures of a report."""
    unit, best = told["unit"], told["recommended"]
    lines = [
        f"{stage:<14} {s['model'] or 'its own'} × {s['samples']}" for stage, s in best["allocation"].items()
    ]
    lines.append(
        f"{told['metric']} {best['quality']:.3f}  90 % interval [{best['low']:.3f}, {best['high']:.3f}]  "
        f"cost {best['cost']:.4g} of {told['budget']:.4g} {unit} a query"
    )
    spent = told["spent"]
    lines.append(
        f"{len(told['tied'])} tied, {len(told['frontier'])} points on the frontier; the search spent "
        f"{spent['amount']:.4g} {unit} on {spent['measured']} measurements, {spent['failed']} runs failed"
    )
    asked = spent.get("proposer", {})
    if asked.get("calls"):
        lines.append(
            f"a model was asked {asked['calls']} times: {asked['prompt_tokens']:,} tokens read, "
            f"{asked['output_tokens']:,} written"
        )
    if within := told.get("average"):
        lines.append(
            f"{ALLOCATION} keeps to {within['budget']:.4g} {unit} on average: for all {told['metric']} "
            f"{within['quality']:.3f} at {within['cost']:.4g}"
        )
    if by := told.get("difficulty"):
        lines.append(
            f"by difficulty, {len(by['levels'])} levels: {told['metric']} {by['quality']:.3f} at "
            f"{by['cost']:.4g} {unit} a query on average; {by['explained']:.1%} of difficulty is foreseen"
        )
    for one in told.get("compared", []):
        b = one["recommended"]
        lines.append(f"  {one['method']:<14} {b['quality']:.3f} (own estimate)  cost {b['cost']:.4g} {unit}")
    return lines
