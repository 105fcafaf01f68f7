"""Text to training batches: corpora, tokenizers, packed tokens, blocks."""
