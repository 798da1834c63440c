"""Scores and their confidence intervals, one file per family."""
