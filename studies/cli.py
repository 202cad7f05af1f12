"""The console script `bitwright VERB ...`: another name for the `python -m ...` commands.

Unlike `python -m`, a console script does not put the working directory on the module path, so a folder
of the user's that is called `studies/` or `qat/` can never stand in front of this project's packages.
"""

from __future__ import annotations

import runpy
import sys

from hwsim.errors import nearest

VERBS = {
    "sweep": ("studies.sweep", "run a study and write its report"),
    "report": ("studies.report", "write the report of a study folder again"),
    "train": ("qat", "train a teacher or a student"),
    "eval": ("qat", "evaluate a trained run on its test set"),
    "export": ("qat", "turn a run into an integer model"),
    "list": ("hwsim", "list the machines that are known by name"),
    "check": ("hwsim", "check a machine file"),
    "expand": ("hwsim", "print a machine with everything it inherits"),
    "schema": ("hwsim", "print the JSON Schema of machine files"),
    "run": ("hwsim", "run a model on a machine"),
    "verify": ("hwsim", "compare every tensor of a machine's run with the reference"),
}


def usage() -> str:
    """Return the overview of all verbs."""
    verbs = "\n".join(f"  {verb:8} {text}" for verb, (_, text) in VERBS.items())
    return f"usage: bitwright VERB ...\n\n{verbs}\n\n`bitwright VERB --help` explains each."


def main() -> None:
    """Run the module that a verb belongs to, as `python -m` would."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        sys.exit(0 if arguments else 2)
    verb = arguments[0]
    if verb not in VERBS:
        print(f"bitwright: unknown verb '{verb}'{nearest(verb, list(VERBS))}", file=sys.stderr)
        sys.exit(2)
    module, _ = VERBS[verb]
    # qat and hwsim have verbs of their own; each module of studies is one verb
    passed = arguments[1:] if module.startswith("studies.") else arguments
    sys.argv = [f"bitwright {verb}", *passed]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
