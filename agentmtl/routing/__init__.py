"""Which expert answers: by description, by what was learned from scores, and at what cost."""
