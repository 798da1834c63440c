"""From probabilities to text: searches, n-grams, subwords."""
