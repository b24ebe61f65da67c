"""Evidence over several hops: facets, query updaters, a beam over chains, PageRank; no language model needed.

facets    routes a question: side by side, or down the beam
graph     names, sentences and passages of a snapshot as arrays
question  hop 1: the candidates of a question
updaters  from a passage to what it leads to
beam      the chains
pagerank  personalised PageRank over names and passages
select    from chains to a ranking
search    `search_hops`, which puts them together
"""

from agentmtl.retrieval.hops.search import HopResult, HopSettings, search_hops

__all__ = ["HopResult", "HopSettings", "search_hops"]
