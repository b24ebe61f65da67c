"""Makes `golden/`: a small index of format 1 and what it answers.

Run from the folder above `tests`: python -m tests.index.make_golden
Run it for a new format only, into a new folder: the old one must go on opening, or say how to migrate.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from agentmtl.index.store import Store

from . import toy

GOLDEN = Path(__file__).parent / "golden"
QUERIES = toy.QUERIES[:3]


def recorded(folder: Path) -> dict[str, object]:
    snapshot = Store(folder).open()
    found = toy.answers(snapshot, toy.ToyEncoder(), (4,), QUERIES)
    return {
        "answers": {name: [[i, round(score, 4)] for i, score in hits] for name, hits in found.items()},
        "documents": {key: list(row) for key, row in toy.content(snapshot)["documents"].items()},
        "units": sorted(toy.content(snapshot)["units"]),
    }


def main() -> None:
    shutil.rmtree(GOLDEN, ignore_errors=True)
    folder, encoder = GOLDEN / "format-1", toy.ToyEncoder()
    toy.build(folder, toy.several(4), encoder)
    toy.build(folder, toy.several(2, start=4), encoder)
    toy.delete(folder, ["d1"])
    (folder / "LOCK").unlink()
    text = json.dumps(recorded(folder), ensure_ascii=False, indent=1, sort_keys=True)
    (GOLDEN / "format-1.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
