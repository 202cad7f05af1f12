"""Quantisers of weights and activations, and what happens to those of a whole model."""
