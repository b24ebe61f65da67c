"""`python cli.py …` in a checkout is the installed command `agentmtl …`."""

from agentmtl.cli import run

if __name__ == "__main__":
    run()
