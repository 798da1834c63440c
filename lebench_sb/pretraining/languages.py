"""Language-balanced batches for multilingual pre-training (XLSR: Conneau et al., 2020).

Language l has n_l of the N seconds of a pass. Its share of what is heard is proportional to
(n_l / N) ** exponent: 1 leaves things as they are, 0 makes all languages equal; XLSR-53 and XLS-R use 0.5.
"""

import logging

import numpy as np

from lebench_sb.core.errors import UsageError
from lebench_sb.training.data import StreamPlan, arrange, seed_of

logger = logging.getLogger(__name__)


def check_exponent(value):
    """Raises UsageError unless 0 <= value <= 1"""
    if not 0 <= value <= 1:
        raise UsageError(
            f"--language_exponent {value}: it is between 0 (equal shares) and 1 (shares as they are)."
        )


def shares(seconds, exponent):
    """seconds (L,) of each language -> (L,) shares of the audio heard, of sum 1"""
    powers = (seconds / seconds.sum()) ** exponent
    return powers / powers.sum()


class BalancedPlan(StreamPlan):
    """A StreamPlan whose passes hold each language with its share, and as much audio as all data together.

    languages: (n,) of each utterance. Every language has an endless stream of its own: its utterances in one
    random order after the other. Pass k takes the k-th stretch of each stream, as long as the share asks for,
    so that a small language comes several times per pass, a large one in part, and none of its utterances is
    heard twice before all others have been. A stream depends on (seed, language, round) alone: a pass is the
    same in every process and after a resume. Its crops depend on the round.
    """

    def __init__(self, languages, exponent, durations, *arguments):
        """arguments: those of StreamPlan after `durations`"""
        super().__init__(durations, *arguments)
        languages = np.asarray(languages)
        self.names = sorted(set(languages.tolist()))
        self.members = [np.flatnonzero(languages == name) for name in self.names]
        self.totals = np.array([self.durations[own].sum() for own in self.members])
        self.shares = shares(self.totals, exponent)

    def one_pass(self, number):
        """-> batches, each an array of position + utterances x (round - 1)"""
        drawn = np.concatenate([self.stretch(k, number) for k in range(len(self.names))])
        rng = np.random.default_rng([self.seed % 2**32, number])
        durations = self.durations[drawn % len(self.durations)]
        return [drawn[batch] for batch in arrange(durations, self.max_batch_seconds, rng, self.shuffle)]

    def stretch(self, k, number):
        """What pass `number` takes of language k's stream: utterances that begin in its stretch of time"""
        length = self.shares[k] * self.totals.sum()
        begin, end = (number - 1) * length, number * length
        first, places = int(begin // self.totals[k]), []
        for done in range(first, int(end // self.totals[k]) + 1):
            rng = np.random.default_rng(seed_of("language", self.seed, self.names[k], done))
            shuffled = rng.permutation(self.members[k])
            starts = done * self.totals[k] + np.cumsum(self.durations[shuffled]) - self.durations[shuffled]
            inside = shuffled[(starts >= begin) & (starts < end)]
            places.append(inside + len(self.durations) * done)
        return np.concatenate(places)

    def indexed(self, batches, number):
        """-> lists of (position, round of its language)"""
        count = len(self.durations)
        return [[(i % count, i // count + 1) for i in np.asarray(batch).tolist()] for batch in batches]

    def tell(self):
        """Logs the share of each language in the data and in what is heard"""
        were = self.totals / self.totals.sum()
        changes = zip(self.names, 100 * were, 100 * self.shares, strict=True)
        parts = [f"{name or 'none'} {before:.3g} -> {after:.3g} %" for name, before, after in changes]
        logger.info("Share of the audio, by language: %s", ", ".join(parts))
