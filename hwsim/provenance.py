"""Where a result comes from: the revision of the sources that made it."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path


@cache
def source_revision() -> str | None:
    """Return the commit of the checkout that this code runs from, `-dirty` where files are changed.

    None for an installed package, also where that lies inside somebody else's repository: only a tracked
    file tells of ours.
    """
    here = Path(__file__)
    # in a hook of another repository these would point there
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    git = ["git", "-C", str(here.parent)]
    try:
        subprocess.run(
            [*git, "ls-files", "--error-unmatch", here.name],
            capture_output=True,
            check=True,
            env=environment,
        )
        describe = [*git, "describe", "--always", "--dirty", "--abbrev=40"]
        answer = subprocess.run(
            describe, capture_output=True, text=True, check=True, env=environment
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()
