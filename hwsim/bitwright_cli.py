"""`bitwright hwsim|qat|sweep ...`: another spelling of the `python -m` commands."""

from __future__ import annotations

import runpy
import sys

from hwsim.errors import nearest

MODULES = {"hwsim": "hwsim", "qat": "qat", "sweep": "studies.sweep"}

USAGE = """\
usage: bitwright COMMAND ...

  bitwright hwsim ...   python -m hwsim: run and verify models on machines
  bitwright qat ...     python -m qat: train, evaluate and export models
  bitwright sweep ...   python -m studies.sweep: a study from training to report
"""


def main() -> None:
    """Dispatch to the module that the first argument names."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        sys.exit(0 if arguments else 2)
    command = arguments[0]
    if command not in MODULES:
        known = list(MODULES)
        print(
            f"bitwright: COMMAND must be one of {', '.join(known)}, not {command!r}"
            f"{nearest(command, known)}",
            file=sys.stderr,
        )
        sys.exit(2)
    sys.argv = [f"bitwright {command}", *arguments[1:]]
    # As `python -m` does: worker processes must find the functions that a study hands them.
    runpy.run_module(MODULES[command], run_name="__main__", alter_sys=True)
