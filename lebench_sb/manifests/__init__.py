"""Manifests: the table of utterances, its columnar copy, shards, checks of what it names, and annotations."""
