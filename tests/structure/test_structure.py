"""What holds for the package as a whole: its surface, its direction of dependencies, its promises."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import agentmtl

PACKAGE = Path(agentmtl.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

# Left to right, as a query flows; a package may import those before it and itself.
ORDER = [
    "schema", "errors", "work", "spending", "settings", "tasks", "ingest", "trunk", "index", "retrieval",
    "experts", "routing", "agent", "evaluate", "compute", "learn", "integrations", "sample", "cli",
]  # fmt: skip
HEAVY = {"torch", "transformers", "sentence_transformers", "langchain", "langchain_core", "langgraph", "vllm",
         "openvino", "faiss", "numpy", "tokenizers", "sklearn",
         "scipy", "numba", "pydivsufsort", "nltk", "ir_measures", "bs4", "lxml", "pypdf", "docx"}  # fmt: skip


def test_all_lists_the_public_names_sorted_and_they_load() -> None:
    assert agentmtl.__all__ == sorted(agentmtl.__all__)
    assert set(agentmtl.__all__) == set(agentmtl._HOMES)
    for name in agentmtl.__all__:
        assert getattr(agentmtl, name) is not None
    with pytest.raises(AttributeError):
        agentmtl.no_such_name  # noqa: B018


def test_every_public_name_has_a_docstring() -> None:
    bare = [name for name in agentmtl.__all__ if not (getattr(agentmtl, name).__doc__ or "").strip()]
    assert bare == []


def imported(path: Path) -> set[str]:
    """The parts of agentmtl that a module imports, at any depth, type-checking imports included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "agentmtl":
                names = [f"agentmtl.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {n.split(".")[1] for n in names if n.startswith("agentmtl.") and n.count(".")}
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_dependencies_point_one_way(path: Path) -> None:
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if part in {"__init__", "__main__"}:
        return
    assert part in ORDER, f"{part} is not in the order of dependencies: add it to ORDER"
    later = set(ORDER[ORDER.index(part) + 1 :])
    assert not imported(path) & later


def test_only_the_command_line_knows_typer() -> None:
    knows = [
        p for p in SOURCES if re.search(r"^\s*(import|from) (typer|fastapi)", p.read_text("utf-8"), re.M)
    ]
    assert {p.relative_to(PACKAGE).parts[0] for p in knows} == {"cli"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_unsafe_is_called(path: Path) -> None:
    text = path.read_text("utf-8")
    banned = (
        r"\b(pickle|marshal|shelve)\b|(?<![\w.])(eval|exec)\(|trust_remote_code\s*=\s*True|shell\s*=\s*True"
    )
    found = [m.group() for m in re.finditer(banned, text) if not _in_text(text, m.start())]
    assert found == []


def _in_text(source: str, at: int) -> bool:
    """Whether the offset is inside a string or comment (a docstring may speak of such things)."""
    import io
    import tokenize

    line = source.count("\n", 0, at) + 1
    column = at - (source.rfind("\n", 0, at) + 1)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in {tokenize.STRING, tokenize.COMMENT} and token.start <= (line, column) < token.end:
            return True
    return False


@pytest.mark.parametrize("module", ["agentmtl", "agentmtl.cli"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    code = f"import {module}, sys; print(*{{m.split('.')[0] for m in sys.modules}})"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not HEAVY & set(out.split())


# Subclasses of LangChain's classes.
LANGCHAIN = (
    "chat_vllm.py", "vllm_replies.py", "vllm_local.py", "structured.py", "documents.py", "retriever.py",
    "vector_store.py", "middleware.py", "fake.py", "runnables.py", "runnable_expert.py", "tool_expert.py",
    "embeddings.py", "tools.py",
)  # fmt: skip


def test_modules_made_of_a_framework_are_imported_late() -> None:
    """Nothing but their own kind names them at its top."""
    homes = {f"agentmtl.{'experts' if n == 'fake.py' else 'integrations'}.{n[:-3]}" for n in LANGCHAIN}
    homes.add("agentmtl.agent.graph")
    for path in SOURCES:
        name = f"agentmtl.{path.parent.name}.{path.stem}"
        tops = {n.module for n in ast.parse(path.read_text("utf-8")).body if isinstance(n, ast.ImportFrom)}
        assert name in homes or not tops & homes, path


def test_modules_import_nothing_heavy_at_their_top() -> None:
    """numpy is fine below the command line; models, parsers and frameworks are not, but where a module is
    made of a framework's classes and is itself imported only where it is used."""
    late = HEAVY - {"numpy"}
    kernels = {"suffixes.py": {"numba"}, "kernel.py": {"numba"}}  # compiled, and imported only where used
    kernels |= {name: {"langchain", "langchain_core"} for name in LANGCHAIN} | {
        "graph.py": {"langgraph", "langchain_core"}
    }
    wrong = []
    for path in SOURCES:
        for node in ast.parse(path.read_text("utf-8")).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            wrong += [
                f"{path.name}: {n}" for n in names if n.split(".")[0] in late - kernels.get(path.name, set())
            ]
    assert wrong == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_stay_readable(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 400


def test_every_module_says_what_it_is_for() -> None:
    bare = [p for p in SOURCES if not ast.get_docstring(ast.parse(p.read_text("utf-8")))]
    assert bare == []


def test_errors_are_one_tree_with_exit_codes() -> None:
    errors = importlib.import_module("agentmtl.errors")
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, Exception)]
    assert all(issubclass(c, errors.AgentmtlError) for c in classes)
    assert {c.exit_code for c in classes} == {1, 2, 4, 5}
    drawn = errors.__doc__ or ""
    assert [c.__name__ for c in classes if c.__name__ not in drawn] == []
