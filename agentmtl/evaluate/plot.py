"""The risk–coverage picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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
    if path.suffix.lower() not in _FORMATS:
        raise UsageError(f"A plot cannot be written as {path.name}.", "Name it .png, .svg or .pdf.")
    drawn = {name: curve for name, curve in curves.items() if len(curve.risk)}
    if not drawn:
        raise UsageError("No answer could be judged, so there is no curve.", "Use a set with answers.")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("A plot needs matplotlib.", "pip install 'agentmtl[eval]'") from error
    figure = Figure(figsize=(7, 4.5), layout="constrained")
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


def _save(figure: object, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)  # type: ignore[attr-defined]
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}.", "Choose another file.") from error
