"""Generated identifiers: n-grams of tokens that provably occur in the corpus.

tokenizer  the tokeniser that names a stream, and its three markers
suffixes   suffix array kernels: range, distinct continuations
stream     one segment's tokens with their suffix array, as arrays in a file
storage    the stream files of a generation
ngrams     `Ngrams`: what a snapshot's live texts hold, merged over segments
"""

from agentmtl.index.identifiers.ngrams import Ngrams, ngrams_of
from agentmtl.index.identifiers.tokenizer import StreamTokenizer, load_tokenizer

__all__ = ["Ngrams", "StreamTokenizer", "load_tokenizer", "ngrams_of"]
