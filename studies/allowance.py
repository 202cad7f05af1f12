"""What a sweep may still do within its budget. All coordinators of one sweep share one allowance."""

from __future__ import annotations

import time
from collections.abc import Callable

from studies.space import Budget

SECONDS_PER_HOUR = 3600.0


class Allowance:
    """Counts the attempts that a sweep begins, and its hours.

    Args:
        budget: the limits; those that are not given do not limit.
        clock: seconds that pass, from any origin.
    """

    def __init__(self, budget: Budget, clock: Callable[[], float] = time.monotonic) -> None:
        self._budget = budget
        self._clock = clock
        self._begin = clock()
        self._begun = 0
        self.refused = False
        """whether something could not be begun any more"""

    def take(self) -> bool:
        """Say whether one more attempt may begin, and count it if it may."""
        hours = (self._clock() - self._begin) / SECONDS_PER_HOUR
        limits = (self._budget.nodes, self._begun), (self._budget.hours, hours)
        used = any(limit is not None and so_far >= limit for limit, so_far in limits)
        if used:
            self.refused = True
        else:
            self._begun += 1
        return not used
