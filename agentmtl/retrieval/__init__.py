"""From a query to hits and evidence: channels, fusion, hops."""
