"""Every error agentmtl raises on purpose, in one tree.

    AgentmtlError                    exit 1
    ├── UsageError                   exit 2   the call or a setting is wrong
    │   ├── FilterError                       a `where` expression that does not parse
    │   └── SettingsError                     an unknown key or a bad value in a settings file
    ├── IndexStoreError              exit 4
    │   ├── IndexMissingError                 no index in that folder
    │   ├── IndexDamagedError                 a file does not match its hash, or is gone
    │   ├── IndexFormatError                  written by another version of the format
    │   └── EncoderMismatchError              the index was made by another encoder
    ├── IndexLockedError             exit 1   another process is writing
    ├── StorageError                 exit 1   the disk refused (full, read-only, no locks)
    ├── IngestError                  exit 1   nothing could be read from what was given
    ├── EncoderError                 exit 1   a model cannot be loaded or returned bad vectors
    ├── ModelError                   exit 1   a chat model failed, or says what cannot be used
    └── BudgetExceededError          exit 5   raised before the spending

A message says what happened; `hint` is the next thing to type. Both are shown to the user.
"""

from __future__ import annotations


class AgentmtlError(Exception):
    """Base of all; `code` is stable and machine-readable, `exit_code` is the command line's."""

    code = "error"
    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class UsageError(AgentmtlError):
    """The call cannot be carried out as it was made."""

    code = "usage"
    exit_code = 2


class FilterError(UsageError):
    """A `where` expression does not parse."""

    code = "filter"


class SettingsError(UsageError):
    """A settings file, variable or flag holds an unknown key or a bad value."""

    code = "settings"


class IndexStoreError(AgentmtlError):
    """An index cannot be served."""

    code = "index"
    exit_code = 4


class IndexMissingError(IndexStoreError):
    """There is no index in that folder."""

    code = "index-missing"


class IndexDamagedError(IndexStoreError):
    """A file of the index is gone, cut off or altered; `files` names each with the reason."""

    code = "index-damaged"

    def __init__(self, message: str, hint: str = "", files: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint)
        self.files = files

    @classmethod
    def of_file(cls, name: str, reason: str) -> IndexDamagedError:
        """The error for one bad file of an index."""
        return cls(
            f"The index is damaged: {name} ({reason}).",
            "See which files: agentmtl index verify DIR. Then restore them, or build the index again.",
            files=(f"{name}: {reason}",),
        )


class IndexFormatError(IndexStoreError):
    """The index was written in a format this version does not read."""

    code = "index-format"


class EncoderMismatchError(IndexStoreError):
    """The index holds vectors of another encoder than the one given."""

    code = "encoder-mismatch"


class IndexLockedError(AgentmtlError):
    """Another process holds the writer's lock."""

    code = "index-locked"


class StorageError(AgentmtlError):
    """The file system refused a write; the index is as it was before."""

    code = "storage"


class IngestError(AgentmtlError):
    """Nothing could be read from what was given."""

    code = "ingest"


class EncoderError(AgentmtlError):
    """An encoder cannot be loaded, or returned something that is not a finite vector."""

    code = "encoder"


class ModelError(AgentmtlError):
    """A chat model could not be reached, failed, or said what cannot be used."""

    code = "model"


class BudgetExceededError(AgentmtlError):
    """The next step would exceed the budget; it was not taken."""

    code = "budget"
    exit_code = 5
