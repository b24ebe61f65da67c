"""Retrieval by generated identifiers: n-grams that must occur in the corpus.

keys      who proposes keys: the query, the best hits, a language model
decoding  a model's beam search under the corpus's constraint
scoring   SEAL's weights and coverage, at any level
channel   the channel as the retriever uses it
"""
