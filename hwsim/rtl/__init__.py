"""What chip builders take from a run: stimuli with expected results, and switching activity."""

TILE_LIMIT = 64
"""most tiles that vectors of `all` are written for, unless a limit is given"""
