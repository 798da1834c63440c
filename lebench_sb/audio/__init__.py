"""Audio files as they are: guarded opening, true lengths whatever the headers say, damage in words."""
