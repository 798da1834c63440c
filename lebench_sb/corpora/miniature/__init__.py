"""A licence-free miniature of French speech corpora: text by a grammar of ours, voices by eSpeak NG and SVOX
Pico.

`build_miniature(output, seed=0, scale=1.0)` or `python -m lebench_sb.corpora.miniature --output DIR` stage
the situation of LeBenchmark in small: an hour and a half of read speech without use for its labels, half an
hour of labelled prompts, many voices, noise; and, with `corpora`, small imitations of the other tasks'
corpora. Each is in the exact on-disk layout of the corpus it imitates, so that the recipes for the real
corpora run on it unchanged; a new one is a file `layout_<corpus>.py` (`layouts.py` says what it holds).
Scores on it say nothing about real speech: every table made from it says `synthetic speech`.
"""

from lebench_sb.corpora.miniature.build import build_miniature

__all__ = ["build_miniature"]
