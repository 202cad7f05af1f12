"""The errors a user can meet. One message a fault, with its place, what must be and what came."""

from __future__ import annotations

from collections.abc import Sequence


class BitwrightError(Exception):
    """A fault in what the user gave us. The command line prints it and exits with code 2."""


class ConfigError(BitwrightError):
    """A configuration file is wrong. Holds every fault found, each as `file:line:col: path: text`."""

    def __init__(self, faults: str | Sequence[str]) -> None:
        self.faults: tuple[str, ...] = (faults,) if isinstance(faults, str) else tuple(faults)
        super().__init__("\n".join(self.faults))


class GraphError(BitwrightError):
    """A model cannot be captured, lowered or executed exactly. Names the nodes."""


class CapacityError(BitwrightError):
    """Something does not fit the machine. Names the tensor and by how much."""


class OverflowRefused(BitwrightError):
    """An accumulator left its range on a machine whose overflow rule is `error`."""


class DataError(BitwrightError):
    """A data set is wrong. Names the file and the row."""


class CheckpointError(BitwrightError):
    """A checkpoint or export is damaged, altered or of another kind."""


class MissingExtra(BitwrightError):
    """An optional package is needed. Names the pip line to type."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is not installed and this needs it: pip install 'bitwright[{extra}]'"
        )


def nearest(name: str, known: Sequence[str]) -> str:
    """Return `; did you mean 'x'?` for the closest known name, or an empty text."""
    import difflib

    hits = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{hits[0]}'?" if hits else ""
