"""Commands that are offered for copying: names in them are quoted, for anybody may have given a job its name."""

from __future__ import annotations

import shlex


def profile_again(*keys: str) -> str:
    """Measures applications anew, as they were measured.

    >>> profile_again("cg", "my job; rm -rf $HOME"), profile_again("-v")
    ("tandem profile again cg 'my job; rm -rf $HOME'", 'tandem profile again -- -v')
    """
    options_end = "-- " if any(key.startswith("-") for key in keys) else ""
    return f"tandem profile again {options_end}{shlex.join(keys)}"


def profile_as(key: str) -> str:
    """Measures an application for the first time.

    >>> profile_as("my job")
    "tandem profile --name 'my job' -- COMMAND..."
    """
    return f"tandem profile --name {shlex.quote(key)} -- COMMAND..."


def show_profile(key: str) -> str:
    """Shows what was measured of it.

    >>> show_profile("a b")
    "tandem profile show 'a b'"
    """
    return f"tandem profile show {'-- ' if key.startswith('-') else ''}{shlex.quote(key)}"
