"""The tiny language model that the serving tests use: its synthetic world, its tokenizer, its training.

python -m tests.serving.tiny_model --help
"""
