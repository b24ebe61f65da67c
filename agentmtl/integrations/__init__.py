"""agentmtl inside other programs: vLLM's logits processors."""
