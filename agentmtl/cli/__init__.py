"""The command line: one module a command group, nothing heavy imported before it is needed.

Data goes to stdout, everything else to stderr. Exit codes: 0 ok, 1 failure, 2 usage, 3 abstained,
4 index missing or damaged, 5 budget spent, 130 interrupted (resumable).
"""

from agentmtl.cli.main import app, run

__all__ = ["app", "run"]
