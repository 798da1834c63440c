"""SpeechBrain recipes for self-supervised learning from French speech. Importing it does no work."""

__version__ = "0.1.0"
