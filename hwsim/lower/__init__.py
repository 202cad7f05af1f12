"""From the static student's calls to the integer graph, one rule an operator.

A value of the student becomes one of three things: `Codes` (an integer tensor on a grid), `Acc` (an
accumulator with a pending exact affine map, and perhaps a ReLU, that the consumer absorbs), or `Scores`
(attention probabilities whose form the consumer decides). Nothing is rounded here: thresholds are exact,
biases are kept at full precision until the consumer's constants are derived.
"""

from hwsim.lower.rules import lower
from hwsim.lower.values import Lowered, Tap
from hwsim.lower.views import apply_view

__all__ = ["Lowered", "Tap", "apply_view", "lower"]
