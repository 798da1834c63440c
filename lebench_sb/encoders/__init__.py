"""Encoders: waveforms in, frames and their numbers out; Hugging Face folders on disk."""
