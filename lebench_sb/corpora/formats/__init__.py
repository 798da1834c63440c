"""Readers of the file formats of annotators, whatever the corpus."""
