"""Queries encoded by a head that was distilled from the reranker; documents keep the vectors they have.

The reranker reads query and passage together and is right more often; what it says of an index's first hits
teaches the query's own vector where to point (DSE: Barkan et al., arXiv 1908.05161). Only the query side has
changed, so an index is used as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agentmtl.errors import EncoderError, UsageError
from agentmtl.trunk.encoder import EncoderIdentity, Vectors
from agentmtl.trunk.head_network import HeadNetwork, open_head
from agentmtl.trunk.headed import VECTOR, embed
from agentmtl.trunk.heads import shipped_head


class QueryTower:
    """Encodes queries; `vector=` of `Retriever.retrieve` takes the result."""

    def __init__(self, network: HeadNetwork) -> None:
        """Raises EncoderError for another task's head."""
        network.head.check_output(VECTOR)
        self._network = network

    def is_trained_on(self, sha256: str) -> bool:
        """Whether the head learned from the set with this hash."""
        return self._network.head.card.is_trained_on(sha256)

    def encode(self, queries: Sequence[str]) -> Vectors:
        """(n, d), of unit length. Raises EncoderError where the head cannot run."""
        return embed(self._network, queries)


def load_query_tower(
    encoder: EncoderIdentity, folder: Path | None = None, backend: str = "auto"
) -> QueryTower:
    """The query tower of a head's folder, or the one that comes with the package, for indexes of `encoder`.

    Raises UsageError where none does, EncoderError for a head of another trunk than the index's encoder, or
    where a head embeds that index's documents.
    """
    head = folder or shipped_head("queries")
    if head is None:
        raise UsageError(
            "No query head is installed.", "Train one: agentmtl train queries --data … --out DIR"
        )
    if encoder.texts:
        raise EncoderError(
            f"The vectors of {encoder.name} are not its trunk's, at which a query head points.",
            "Search without --distilled, or in an index of the trunk.",
        )
    network = open_head(head, backend)
    network.head.check_trunk(encoder)
    return QueryTower(network)
