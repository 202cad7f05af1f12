"""Rows that are parts of other rows: phrases of a sentence that is a row itself.

SST-2's training set holds every sentence and its phrases. A carve-out drawn by rows has been read in training
almost word for word, and flatters whatever it measures.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def _marked(texts: Sequence[tuple[str, ...]]) -> list[str]:
    """Lower-case words with a space on both sides, so that `in` compares whole words; columns told apart."""
    return [" " + " \x1f ".join(" ".join(c.lower().split()) for c in row) + " " for row in texts]


def containers(texts: Sequence[tuple[str, ...]]) -> NDArray[np.int64]:
    """Return, for every row [N], the longest row that contains its words in one piece; its own number if none.

    Of equal rows the first contains the others.
    """
    marked = _marked(texts)
    words = [set(text.split()) for text in marked]
    frequency = Counter(word for row in words for word in row)
    # longest first, and a row is only compared with rows that hold its rarest word
    order = sorted(range(len(marked)), key=lambda i: (-len(marked[i]), i))
    holders: defaultdict[str, list[int]] = defaultdict(list)
    found = np.arange(len(marked), dtype=np.int64)
    for i in order:
        if words[i]:
            rarest = min(words[i], key=lambda word: (frequency[word], word))
            for j in holders[rarest]:
                if marked[i] in marked[j]:
                    found[i] = j
                    break
        if found[i] == i:
            for word in words[i]:
                holders[word].append(i)
    return found
