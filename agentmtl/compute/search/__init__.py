"""Searchers: each proposes what to measure next, hears what came of it, and recommends."""
