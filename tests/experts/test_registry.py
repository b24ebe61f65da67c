"""The registry of experts: what is written is what is read; bad entries are named; plans are exact."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmtl.cli.main import _exit_code as run
from agentmtl.errors import UsageError
from agentmtl.experts.calling import Price
from agentmtl.experts.registry import ExpertEntry, Registry
from agentmtl.experts.serving import plan
from agentmtl.integrations.experts import health, model_name
from tests.integrations.server import serving

ADAPTER = ExpertEntry("a", "adapter", "Support tickets.", "a", "http://127.0.0.1:9000", "base")


def adapter(folder: Path, name: str, rank: int) -> ExpertEntry:
    (folder / name).mkdir()
    (folder / name / "adapter_config.json").write_text(json.dumps({"r": rank}))
    (folder / name / "adapter_model.safetensors").write_bytes(b"x" * 100 * rank)
    return ExpertEntry(name, "adapter", "Card.", name, ADAPTER.url, "base", str(folder / name))


texts = st.text(st.characters(blacklist_categories=("Cs",)), max_size=20)


@given(texts.filter(str.strip), st.lists(texts, max_size=3), texts, st.floats(0, 10), st.integers(1, 9))
def test_what_is_written_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, card: str, examples: list[str], url: str, usd: float, most: int
) -> None:
    registry = Registry(tmp_path_factory.mktemp("r") / "experts.toml")
    entry = ExpertEntry(
        "big", "chat", card, "openai:x", url, examples=tuple(examples), price=Price(usd), max_tokens=most
    )
    registry.add(entry)
    assert registry.entries()["big"] == entry and list(registry.entries()) == ["reader", "big"]
    with pytest.raises(UsageError, match="already"):
        registry.add(entry)
    registry.remove("big")
    assert list(registry.entries()) == ["reader"]
    with pytest.raises(UsageError, match="There is no expert 'big'"):
        registry.remove("big")


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ('kind = "oracle"\ncard = "x"', "kind 'oracle'"),
        ('kind = "chat"\nmodel = "a:b"', "no card"),
        ('kind = "chat"\ncard = "x"', "names no model"),
        ('kind = "chat"\ncard = "x"\nmodel = "a:b"\ncolour = 1', "colour"),
        ('kind = "chat"\ncard = "x"\nmodel = "a:b"\nprice = { gold = 1 }', "price"),
        ('kind = "chat"\ncard = "x"\nmodel = "a:b"\nmax_tokens = 0', "no token"),
        ('kind = "chat"\ncard = "x"\nmodel = 3', "model that is no text"),
        ("kind = ", "cannot be read"),
    ],
)
def test_a_bad_entry_is_named(tmp_path: Path, table: str, told: str) -> None:
    path = tmp_path / "experts.toml"
    path.write_text(f"[experts.one]\n{table}\n")
    with pytest.raises(UsageError, match=told):
        Registry(path).entries()


def test_a_plan_is_the_command_that_serves_the_adapters(tmp_path: Path) -> None:
    entries = {e.name: e for e in (adapter(tmp_path, "a", 8), adapter(tmp_path, "b", 12))}
    (server,) = plan(entries)
    assert server.max_rank == 16 and server.bytes == 2000 and server.adapters == ("a", "b")
    assert " ".join(server.command) == (
        "vllm serve base --host 127.0.0.1 --port 9000 --enable-lora --max-loras 2 --max-lora-rank 16 "
        f"--lora-modules a={tmp_path / 'a'} b={tmp_path / 'b'}"
    )
    assert (server.max_loras, server.base_bytes) == (2, None)
    assert server.slot_bytes == 2 * 1600, "two slots, of what rank 16 takes where rank 8 takes 800"
    with pytest.raises(UsageError, match="no base model or no folder"):
        plan({"a": ADAPTER})


def test_a_plan_says_what_is_on_this_machine(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    for part in ("1", "2"):
        (tmp_path / "base" / f"model-{part}.safetensors").write_bytes(b"x" * 500)
    one = replace(adapter(tmp_path, "a", 8), base=str(tmp_path / "base"))
    (server,) = plan({"a": one})
    assert (server.base_bytes, server.bytes, server.slot_bytes) == (1000, 800, 800)
    (tmp_path / "a" / "adapter_model.safetensors").unlink()
    (server,) = plan({"a": one})
    assert (server.base_bytes, server.bytes, server.slot_bytes) == (1000, None, None)


def test_health_asks_the_server_what_it_serves() -> None:
    with serving() as server:
        url = server.url.removesuffix("/v1")
        assert health(ExpertEntry("x", "adapter", "Card.", "adapter", url)) == "ok"
        assert "does not know other" in health(ExpertEntry("x", "adapter", "Card.", "other", url))
    assert "cannot be reached" in health(ExpertEntry("x", "adapter", "Card.", "adapter", url))
    assert model_name(ExpertEntry("x", "chat", "Card.", "openai:y")) == "openai:y"


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, file = adapter(tmp_path, "a", 8), ["--file", str(tmp_path / "experts.toml")]
    words = ["--kind", "adapter", "--card", "Tickets.", "--model", "a", "--base", "base", "--path", made.path]
    assert run(["experts", "add", "tickets", *words, "--usd", "1,2", *file]) == 0
    assert (
        tomllib.loads((tmp_path / "experts.toml").read_text())["experts"]["tickets"]["price"]["output"] == 2
    )
    assert run(["experts", "list", "--json", *file]) == 0
    assert run(["experts", "plan", *file]) == 0
    shown = capsys.readouterr().out
    assert "--max-lora-rank 8" in shown and "# memory: base not on this machine, adapters 0.0 MB" in shown
    assert run(["experts", "plan", "--json", *file]) == 0
    (server,) = json.loads(capsys.readouterr().out)["servers"]
    assert (server["max_loras"], server["slot_bytes"], server["base_bytes"]) == (1, 800, None)
    assert run(["experts", "remove", "tickets", *file]) == 0
    assert (
        run(["experts", "add", "x", "--kind", "chat", "--card", "c", "--model", "a:b", "--usd", "one", *file])
        == 2
    )


def test_a_tool_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = ["--file", str(tmp_path / "experts.toml")]
    words = ["--kind", "tool", "--target", "os.path:join", "--card", "Joins paths.", "--usd-a-call", "0.5"]
    assert run(["experts", "add", "paths", *words, "--seconds", "2", "--confidence", "0.9", *file]) == 0
    written = tomllib.loads((tmp_path / "experts.toml").read_text())["experts"]["paths"]
    assert written == {
        "kind": "tool", "target": "os.path:join", "card": "Joins paths.", "usd_a_call": 0.5,
        "seconds_a_call": 2.0, "confidence": 0.9,
    }  # fmt: skip
    capsys.readouterr()
    assert run(["experts", "list", "--check", *file]) == 0
    shown = capsys.readouterr().out
    assert "0.5 usd a call, 2 s a call" in shown and "no BaseTool but a function" in shown
    assert run(["experts", "list", "--check", "--json", *file]) == 0
    told = {one["name"]: one for one in json.loads(capsys.readouterr().out)["experts"]}
    assert told["reader"]["health"] == "ok" and "no BaseTool" in told["paths"]["health"]
    assert run(["experts", "add", "bare", "--kind", "runnable", "--card", "Nothing.", *file]) == 2
    assert "no target" in capsys.readouterr().err
