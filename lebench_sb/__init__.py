"""SpeechBrain recipes for self-supervised learning from French speech. Importing this package does no work."""

__version__ = "0.1.0"
