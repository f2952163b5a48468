"""Embedders: what makes a vector of a text."""
