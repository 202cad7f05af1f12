"""What a sweep may still do within its budget. All coordinators of one sweep share one allowance."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from studies.space import Budget

SECONDS_PER_HOUR = 3600.0


class Allowance:
    """Counts the attempts that a sweep begins, and its hours.

    Args:
        budget: the limits; None: there are none.
        clock: seconds that pass, from any origin.
    """

    def __init__(
        self, budget: Budget | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._nodes = None if budget is None else budget.nodes
        self._hours = None if budget is None else budget.hours
        self._clock = clock
        self._begin = clock()
        self._begun = 0
        self.refused = False
        """whether something could not be begun any more"""

    def take(self) -> bool:
        """Say whether one more attempt may begin, and count it if it may."""
        hours = (self._clock() - self._begin) / SECONDS_PER_HOUR
        limits = (self._nodes, self._begun), (self._hours, hours)
        used = any(limit is not None and so_far >= limit for limit, so_far in limits)
        if used:
            self.refused = True
        else:
            self._begun += 1
        return not used
