"""The embedded expert passes the suite that plug-in authors run."""

from agentmtl.experts.conformance import ExpertConformance
from agentmtl.experts.expert import Expert
from agentmtl.experts.sentences import SentenceExpert


class TestSentenceExpert(ExpertConformance):
    def make(self) -> Expert:
        return SentenceExpert()
