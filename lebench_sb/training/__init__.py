"""A run: its folder, what it began with, its processes."""
