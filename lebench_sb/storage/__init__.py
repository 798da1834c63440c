"""Manifests of millions of rows, and audio inside tar files."""
