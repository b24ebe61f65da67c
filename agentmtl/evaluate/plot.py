"""Pictures of results: risk over coverage, and a metric over a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentmtl.errors import StorageError, UsageError
from agentmtl.evaluate.metrics import RiskCoverage

_FORMATS = {".png", ".svg", ".pdf"}


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Where the agent's own threshold stands: both as shares of the questions."""

    coverage: float
    risk: float


def plot_risk_coverage(
    curves: Mapping[str, RiskCoverage], path: Path, title: str, threshold: OperatingPoint | None = None
) -> None:
    """Draw curves by name into a file (.png, .svg or .pdf), with the agent's own threshold.

    Raises UsageError where matplotlib is missing, the format is unknown or no curve has a point;
    StorageError where the file cannot be written.
    """
    _check_format(path)
    drawn = {name: curve for name, curve in curves.items() if len(curve.risk)}
    if not drawn:
        raise UsageError("No answer could be judged, so there is no curve.", "Use a set with answers.")
    figure = _figure()
    axes = figure.add_subplot(
        title=title,
        xlabel="Coverage: share of questions answered, most confident first",
        ylabel="Risk: share of these answers that are wrong",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    for name, curve in drawn.items():
        axes.step(curve.coverage, curve.risk, where="post", label=f"{name} (area {curve.aurc:.3f})")
        chance = float(curve.risk[-1])
        axes.axhline(chance, linestyle=":", color="grey", label=f"random order ({chance:.3f})")
    if threshold is not None:
        label = f"own threshold ({threshold.coverage:.2f}, {threshold.risk:.2f})"
        axes.plot(threshold.coverage, threshold.risk, "o", color="black", label=label)
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    _save(figure, path)


def plot_curves(path: Path, xs: Sequence[int], curves: Mapping[str, Sequence[float]], x: str, y: str) -> None:
    """Draw a line a method over `xs` (on a scale of powers of two) into a file; raises as above."""
    _check_format(path)
    figure = _figure()
    axes = figure.add_subplot(xlabel=x, ylabel=y, xscale="log")
    for name, values in curves.items():
        axes.plot(xs, values, marker="o", label=f"{name} ({values[-1]:.3f} at {xs[-1]})")
    axes.set_xticks(list(xs), [str(n) for n in xs])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    _save(figure, path)


def _check_format(path: Path) -> None:
    if path.suffix.lower() not in _FORMATS:
        raise UsageError(f"A plot cannot be written as {path.name}.", "Name it .png, .svg or .pdf.")


def _figure() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("A plot needs matplotlib.", "pip install 'agentmtl[eval]'") from error
    return Figure(figsize=(7, 4.5), layout="constrained")


def _save(figure: object, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)  # type: ignore[attr-defined]
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}.", "Choose another file.") from error
