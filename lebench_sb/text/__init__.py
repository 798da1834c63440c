"""Text: the French normaliser, subwords."""
