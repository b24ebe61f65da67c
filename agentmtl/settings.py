"""Settings and where each value came from: flag > environment > project file > user file > default.

    project file   agentmtl.toml in the working folder
    user file      config.toml in the user's configuration folder (`agentmtl config show` names it)
    environment    AGENTMTL_<KEY>, in capitals

An unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from agentmtl.errors import SettingsError

PROJECT_FILE = "agentmtl.toml"
ENVIRONMENT_PREFIX = "AGENTMTL_"
_NOT_SETTINGS = {
    "AGENTMTL_CACHE_DIR", "AGENTMTL_DATA_DIR", "AGENTMTL_CONFIG_DIR", "AGENTMTL_NO_MODEL_CALLS",
    "AGENTMTL_IDENTIFIERS_INDEX",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting with its default."""

    index: str = ""  # folder of the index that search and ask use when --index is not given
    encoder: str = "default"  # "default", a sentence-transformers name or path, or "hashing"
    backend: str = "auto"  # auto | openvino | torch-bf16 | torch-fp32
    factory: str = "Flat"  # FAISS factory string
    passage_words: int = 120  # words of a passage, at most
    overlap_sentences: int = 1  # sentences that neighbouring passages share
    k: int = 10  # hits a search returns
    hops: int = 2  # retrieval steps of ask, at most
    threshold: float = -1.0  # confidence below which ask abstains; -1 is the calibrated one
    log: bool = True  # keep questions and answers for `agentmtl log`
    prompts: str = ""  # folder of prompts of your own, which replace the package's of the same name
    offline: bool = True  # never look for a model on a hub


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a setting's value came from, for `agentmtl config show --origin`."""

    value: Any
    source: str


def load_settings(
    flags: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    project: Path | None = None,
) -> tuple[Settings, dict[str, Origin]]:
    """The settings in force and the origin of each.

    `flags` are those given on the command line (None values count as not given). Raises SettingsError
    for an unknown key, a value of the wrong type or a file that does not parse.
    """
    origins = {f.name: Origin(f.default, "default") for f in fields(Settings)}
    environment = os.environ if environment is None else environment
    project = Path(PROJECT_FILE) if project is None else project
    layers = [
        _file_layer(config_folder(environment) / "config.toml"),
        _file_layer(project),
        _environment_layer(environment),
        {key: (value, "flag") for key, value in (flags or {}).items() if value is not None},
    ]
    for layer in layers:
        for key, (value, source) in layer.items():
            origins[key] = Origin(_typed(key, value, source), source)
    return Settings(**{key: origin.value for key, origin in origins.items()}), origins


def _file_layer(path: Path) -> dict[str, tuple[Any, str]]:
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:  # TOML and Unicode errors are ValueErrors
        raise SettingsError(f"{path} cannot be read: {error}.", "Mend that line of the file.") from error
    return {key: (value, str(path)) for key, value in data.items()}


def _environment_layer(environment: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    names = [n for n in environment if n.startswith(ENVIRONMENT_PREFIX) and n not in _NOT_SETTINGS]
    return {n.removeprefix(ENVIRONMENT_PREFIX).lower(): (environment[n], n) for n in sorted(names)}


def _typed(key: str, value: Any, source: str) -> Any:
    default = {f.name: f.default for f in fields(Settings)}.get(key)
    if default is None:
        near = difflib.get_close_matches(key, [f.name for f in fields(Settings)], 1)
        hint = f"Did you mean {near[0]!r}?" if near else "See them all: agentmtl config show"
        raise SettingsError(f"Unknown setting {key!r} in {source}.", hint)
    try:
        return _converted(value, type(default))
    except ValueError as error:
        wanted = type(default).__name__
        raise SettingsError(
            f"Setting {key!r} in {source} must be of type {wanted}, not {value!r}.", "Mend the value."
        ) from error


def _converted(value: Any, wanted: type) -> Any:
    if wanted is bool and isinstance(value, str):
        known = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
        if value.lower() not in known:
            raise ValueError(value)
        return known[value.lower()]
    if wanted is not bool and isinstance(value, bool):
        raise ValueError(value)
    if wanted in (int, float) and isinstance(value, str | int | float):
        return wanted(value)
    if not isinstance(value, wanted):
        raise ValueError(value)
    return value


def config_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Where the user's settings file is (AGENTMTL_CONFIG_DIR overrides it)."""
    return _user_folder("CONFIG", os.environ if environment is None else environment)


def cache_folder() -> Path:
    """Where what can be made anew is kept: converted models, verified files (AGENTMTL_CACHE_DIR)."""
    return _user_folder("CACHE", os.environ)


def data_folder() -> Path:
    """Where the log of questions is kept (AGENTMTL_DATA_DIR)."""
    return _user_folder("DATA", os.environ)


def _user_folder(kind: str, environment: Mapping[str, str]) -> Path:
    if given := environment.get(f"{ENVIRONMENT_PREFIX}{kind}_DIR"):
        return Path(given)
    import platformdirs

    ask = {
        "CONFIG": platformdirs.user_config_path,
        "CACHE": platformdirs.user_cache_path,
        "DATA": platformdirs.user_data_path,
    }
    return Path(ask[kind]("agentmtl", appauthor=False))
