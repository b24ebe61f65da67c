"""The agent: evidence in, a checked and cited answer out; and the log of what it did."""
