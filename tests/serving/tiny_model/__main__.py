"""The command line: train the base or an adapter, measure the committed files, release what was trained."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from tests.serving.tiny_model import release
from tests.serving.tiny_model.measuring import Served, measure, table
from tests.serving.tiny_model.recipe import ADAPTER_SHARES, RECIPE
from tests.serving.tiny_model.training import train_adapter, train_base


def main() -> None:
    chosen = _parser().parse_args()
    torch.set_num_threads(1)
    if chosen.what == "measure":
        print(table(measure(release.BASE, release.ADAPTER_FOLDER, chosen.count, chosen.most)))
    elif chosen.work is None:
        raise SystemExit(f"{chosen.what} needs --work")
    elif chosen.what == "base":
        train_base(chosen.work, replace(RECIPE, steps=chosen.steps))
    elif chosen.what == "release":
        release.copy_from(chosen.work)
        rows = measure(release.BASE, release.ADAPTER_FOLDER, chosen.count, chosen.most)
        release.write_card(rows, Served(release.BASE).parameters, chosen.count, chosen.most)
        print(table(rows))
    else:
        train_adapter(chosen.work / "model", chosen.what, chosen.work / "adapters" / chosen.what)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.serving.tiny_model", description=__doc__)
    parser.add_argument("what", choices=["base", *ADAPTER_SHARES, "measure", "release"])
    parser.add_argument("--work", type=Path, help="folder for checkpoints and results of training")
    parser.add_argument("--steps", type=int, default=RECIPE.steps, help="of the base")
    parser.add_argument("--count", type=int, default=100, help="examples of a kind to measure")
    parser.add_argument("--most", type=int, default=4, help="documents in a measured prompt, at most")
    return parser


if __name__ == "__main__":
    main()
