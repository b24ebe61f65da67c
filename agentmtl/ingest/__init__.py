"""Files to documents to units: readers, sentence splitting, chunking, entity mentions."""

from agentmtl.ingest.chunking import Chunking, Cut, Mention, cut, unit_id
from agentmtl.ingest.events import Event, FileRead, Skipped
from agentmtl.ingest.limits import Limits
from agentmtl.ingest.readers import read_paths
from agentmtl.ingest.sentences import split_sentences
from agentmtl.ingest.walk import covers, roots_of, total_bytes

__all__ = [
    "Chunking",
    "Cut",
    "Event",
    "FileRead",
    "Limits",
    "Mention",
    "Skipped",
    "covers",
    "cut",
    "read_paths",
    "roots_of",
    "split_sentences",
    "total_bytes",
    "unit_id",
]
