"""Corpora, one file each: the story of its files, `utterances()` and `prepare_<corpus>()`."""
