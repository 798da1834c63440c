"""From rows of scores to results.json, tables, comparisons and pictures."""
