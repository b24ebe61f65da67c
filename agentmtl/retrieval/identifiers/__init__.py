"""Retrieval by generated identifiers: n-grams that must occur in the corpus.

keys      who proposes keys: the query, the best hits, a language model
decoding  a model's beam search under the corpus's constraint
trained   a decoder over the trunk: its own beam search, and others' keys read by it (`teacher`)
scoring   SEAL's weights and coverage, at any level
channel   the channel as the retriever uses it
"""
