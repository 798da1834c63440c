"""What a task learns on top of an encoder: from frames to symbols, labels, words or trees."""
