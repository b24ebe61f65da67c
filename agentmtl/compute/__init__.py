"""Which model and how many samples each stage of a pipeline deserves under a budget."""
