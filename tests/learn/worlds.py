"""A made-up multi-hop set: a lighthouse leads to its builder, the builder to a town."""

from __future__ import annotations

import json
from pathlib import Path

TOWNS = ("Tarn", "Velby", "Skagen", "Molde", "Narvik", "Hamar", "Voss", "Bergen")
FIRST = ("Mira", "Odd", "Elsa", "Jan", "Liv", "Per", "Ida", "Nils")
LAST = ("Holm", "Lund", "Berg", "Dahl", "Moe", "Vik", "Lie", "Strand")


def multihop_set(folder: Path, questions: int = 60) -> Path:
    """Written to `folder`: `questions` two-hop questions over three times as many passages."""
    folder.mkdir(parents=True)
    corpus, asked = [], []
    for n in range(questions):
        person = f"{FIRST[n % 8]} {LAST[(n // 8) % 8]}{'son' * (n // 64)}"
        house, town = f"Lamp Number {n}", TOWNS[(3 * n) % 8]
        corpus += [
            {"id": f"h{n}", "title": house, "text": f"{house} is a lighthouse. It was built by {person}."},
            {"id": f"p{n}", "title": person, "text": f"{person} was a builder. The family lived in {town}."},
            {"id": f"n{n}", "title": f"Note {n}", "text": f"Note {n} tells of bread and of {person}."},
        ]
        asked.append(
            {
                "id": f"q{n}", "question": f"Where did the family of the builder of {house} live?",
                "answer": town, "answers": [town], "gold": [f"h{n}", f"p{n}"], "hops": 2,
            }
        )  # fmt: skip
    for name, rows in (("corpus", corpus), ("questions", asked)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, "utf-8")
    return folder


def reading_set(folder: Path, records: int = 60) -> Path:
    """Written to `folder`: train and test files of one-sentence contexts, every fifth without its answer."""
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        rows = []
        for n in range(records):
            year, town = str(1800 + n), TOWNS[n % 8]
            context = f"The bridge of {town} number {n} was opened in {year}."
            answerable = n % 5 != 0
            answers = [{"text": year, "start": context.index(year)}] if answerable else []
            asked = f"When was the bridge of {town} number {n} {'opened' if answerable else 'sold'}?"
            rows.append(
                {"id": f"{split}{n}", "title": f"Article {n}", "context": context, "question": asked,
                 "answerable": answerable, "answers": answers}
            )  # fmt: skip
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return folder
