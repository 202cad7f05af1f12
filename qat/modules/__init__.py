"""Modules that take the place of Hugging Face's: linear layers, word embeddings, layer norms."""
