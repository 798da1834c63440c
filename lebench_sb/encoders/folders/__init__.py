"""Hugging Face folders, file by file: config.json, preprocessor_config.json, weights, and what we wrote."""
