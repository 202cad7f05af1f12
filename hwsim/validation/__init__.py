"""Machines against published figures: predict, write the prediction down, then compare."""
