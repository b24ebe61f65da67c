"""An index written by an earlier version opens, or says what to do."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from agentmtl.errors import IndexFormatError
from agentmtl.index.manifest import CURRENT_NAME, Manifest
from agentmtl.index.store import Store
from agentmtl.index.verify import verify

from . import toy
from .make_golden import GOLDEN, recorded


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "format-1", tmp_path / "format-1"))


def test_format_1_opens_and_answers_as_recorded(golden: Path) -> None:
    assert verify(golden).ok and verify(golden).unknown == ()
    wanted = json.loads((GOLDEN / "format-1.json").read_text())
    found = json.loads(json.dumps(recorded(golden)))
    assert found["documents"] == wanted["documents"] and found["units"] == wanted["units"]
    assert found["answers"].keys() == wanted["answers"].keys()
    for name, hits in wanted["answers"].items():
        assert [i for i, _ in found["answers"][name]] == [i for i, _ in hits], name
        assert [s for _, s in found["answers"][name]] == pytest.approx([s for _, s in hits], abs=2e-4), name


def test_format_1_can_be_changed(golden: Path) -> None:
    toy.build(golden, toy.several(3, start=6), toy.ToyEncoder())
    toy.delete(golden, ["d0"])
    toy.compact(golden)
    assert verify(golden).ok
    assert set(toy.content(Store(golden).open())["documents"]) == {f"d{i}" for i in range(2, 9)}


def test_the_golden_index_is_small() -> None:
    assert sum(p.stat().st_size for p in GOLDEN.rglob("*") if p.is_file()) < 200_000


def in_format(folder: Path, number: int, where: str) -> None:
    """Write another format number into CURRENT or the manifest, with right hashes."""
    line = (folder / CURRENT_NAME).read_bytes().split()
    manifest = folder / f"manifest-{int(line[2]):08d}.json"
    raw = manifest.read_bytes()
    if where == "manifest":
        raw = raw.replace(b'"format":1', b'"format":%d' % number)
        manifest.write_bytes(raw)
        line[3] = hashlib.sha256(raw).hexdigest().encode()
    else:
        line[1] = b"%d" % number
    (folder / CURRENT_NAME).write_bytes(b" ".join(line) + b"\n")


@pytest.mark.parametrize("where", ["CURRENT", "manifest"])
@pytest.mark.parametrize(("number", "hint"), [(2, "pip install --upgrade"), (0, "index build")])
def test_other_formats_say_what_to_do(golden: Path, number: int, hint: str, where: str) -> None:
    in_format(golden, number, where)
    before = sorted(p.name for p in golden.rglob("*"))
    for attempt in (
        lambda: Store(golden).open(),
        lambda: verify(golden),
        lambda: toy.build(golden, toy.several(1), toy.ToyEncoder()),
    ):
        with pytest.raises(IndexFormatError, match=f"format {number}") as caught:
            attempt()
        assert hint in caught.value.hint
    assert [name for name in sorted(p.name for p in golden.rglob("*")) if name != "LOCK"] == before


def test_a_later_format_may_write_current_otherwise(golden: Path) -> None:
    (golden / CURRENT_NAME).write_bytes(b"agentmtl-index 2 something else entirely\n")
    with pytest.raises(IndexFormatError, match="format 2"):
        Store(golden).open()


def test_a_manifest_reads_back_as_written(golden: Path) -> None:
    manifest = Store(golden).open().manifest
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest
