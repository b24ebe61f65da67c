"""What an evaluation found: as JSON for scripts, as a table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import Any, TypeAlias

import numpy as np

from agentmtl.evaluate.bootstrap import CONFIDENCE, RESAMPLES, Interval, Statistic, bounds
from agentmtl.schema import SCHEMA_VERSION

Measured: TypeAlias = Mapping[str, Mapping[str, Statistic]]  # method → metric → what was measured
Figures: TypeAlias = Mapping[str, Mapping[str, Interval]]


@dataclass(frozen=True, slots=True)
class Report:
    """One benchmark on one set.

    `methods` and `differences` hold an interval for each metric that has a value; a difference is called
    "a - b" and is paired over the questions. `details` are further facts (hashes, counts, timings),
    plain enough for JSON. `measured` and `compared` are the columns behind them.
    """

    benchmark: str
    data: str
    n: int
    seed: int
    methods: Figures
    default: str
    seconds: float
    commands: tuple[str, ...] = ()
    differences: Figures = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    measured: Measured = field(default_factory=dict, repr=False, compare=False)
    compared: Measured = field(default_factory=dict, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """The form scripts rely on (`agentmtl eval --json`)."""
        return {
            "schema": SCHEMA_VERSION,
            "benchmark": self.benchmark,
            "data": self.data,
            "n": self.n,
            "seed": self.seed,
            "methods": _to_json(self.methods),
            "default": self.default,
            "seconds": round(self.seconds, 3),
            "commands": list(self.commands),
            "differences": _to_json(self.differences),
            "details": dict(self.details),
        }

    def to_text(self) -> str:
        """Tables of the methods and of their differences, with intervals."""
        head = f"{self.benchmark} on {self.data}: {self.n} questions, seed {self.seed}, {self.seconds:.1f} s"
        return "\n\n".join([head, *_tables(self.methods, self.differences), _LEGEND])


@dataclass(frozen=True, slots=True)
class SetsReport:
    """One benchmark on every set of a folder, and the mean over the sets, each counting the same.

    Its intervals resample the questions inside each set.
    """

    benchmark: str
    data: str
    seed: int
    sets: tuple[Report, ...]
    macro: Figures
    differences: Figures
    skipped: tuple[str, ...] = ()  # subfolders that hold no set of the form

    def to_json(self) -> dict[str, Any]:
        """The form scripts rely on (`agentmtl eval --json` for a folder of sets)."""
        return {
            "schema": SCHEMA_VERSION,
            "benchmark": self.benchmark,
            "data": self.data,
            "seed": self.seed,
            "sets": [report.to_json() for report in self.sets],
            "macro": _to_json(self.macro),
            "differences": _to_json(self.differences),
            "skipped": list(self.skipped),
        }

    def to_text(self) -> str:
        """Every set's tables, then the macro average's."""
        names = ", ".join(report.data for report in self.sets)
        head = f"{self.benchmark} on {self.data}: mean over {names}"
        macro = "\n\n".join([head, *_tables(self.macro, self.differences), _LEGEND])
        return "\n\n\n".join([*(report.to_text() for report in self.sets), macro])


AnyReport: TypeAlias = Report | SetsReport


def figures(measured: Measured, seed: int) -> dict[str, dict[str, Interval]]:
    """The interval of every statistic that has a value."""
    return {
        method: {
            metric: statistic.interval(seed)
            for metric, statistic in metrics.items()
            if len(statistic) and not isnan(statistic.value)
        }
        for method, metrics in measured.items()
    }


def combine(
    benchmark: str, data: str, seed: int, sets: Sequence[Report], skipped: Sequence[str] = ()
) -> SetsReport:
    """The report of a folder of sets. Macro figures are of the metrics that every set has."""
    macro = _macro([r.measured for r in sets], [r.methods for r in sets], seed)
    differences = _macro([r.compared for r in sets], [r.differences for r in sets], seed)
    return SetsReport(benchmark, data, seed, tuple(sets), macro, differences, tuple(skipped))


def _macro(
    measured: Sequence[Measured], present: Sequence[Figures], seed: int
) -> dict[str, dict[str, Interval]]:
    methods = [m for m in present[0] if all(m in figures for figures in present)]
    return {
        method: {
            metric: _macro_interval([m[method][metric] for m in measured], seed)
            for metric in present[0][method]
            if all(metric in figures[method] for figures in present)
        }
        for method in methods
    }


def _macro_interval(statistics: Sequence[Statistic], seed: int) -> Interval:
    # a stream of its own for each set: their questions are drawn independently
    draws = [s.draws(np.random.default_rng([seed, n]), RESAMPLES) for n, s in enumerate(statistics)]
    value = float(np.mean([s.value for s in statistics]))
    return bounds(value, np.mean(draws, axis=0))


def _to_json(figures: Figures) -> dict[str, dict[str, dict[str, float]]]:
    return {
        method: {metric: interval.to_json() for metric, interval in metrics.items()}
        for method, metrics in figures.items()
    }


# --- tables -----------------------------------------------------------------------------------------

_LEGEND = (
    f"All figures are fractions of 1, with the {CONFIDENCE:.0%} bootstrap interval over questions; "
    "* marks a difference whose interval excludes 0."
)


def _tables(methods: Figures, differences: Figures) -> list[str]:
    tables = [_table(methods, signed=False)]
    if differences:
        tables.append(_table(differences, signed=True))
    return tables


def _table(figures: Figures, signed: bool) -> str:
    """A row for each metric, a column for each method."""
    metrics = list(dict.fromkeys(metric for column in figures.values() for metric in column))
    first = "difference" if signed else "metric"
    rows = [[first, *figures]]
    for metric in metrics:
        rows.append([metric, *(_cell(column.get(metric), signed) for column in figures.values())])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows)


def _cell(interval: Interval | None, signed: bool) -> str:
    if interval is None:
        return "-"
    form = "+.3f" if signed else ".3f"
    mark = " *" if signed and interval.excludes_zero else ""
    return f"{interval.mean:{form}} [{interval.low:{form}}, {interval.high:{form}}]{mark}"
