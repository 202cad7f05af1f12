"""Modules that take the place of Hugging Face's: linear layers and word embeddings."""
