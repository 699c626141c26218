"""Where a user's things are kept between commands: profiles, calibrations, and what a daemon stores.

`TANDEM_HOME` decides where it is set; else root's are in `/var/lib/tandem`, and a user's in `$XDG_DATA_HOME/tandem`.
What can be made anew at any time is in `$XDG_CACHE_HOME/tandem`.
"""

import os
import pwd
from collections.abc import Mapping
from pathlib import Path

from tandem.core.errors import TandemError

SYSTEM_DATA = Path("/var/lib/tandem")
NOWHERE = Path(os.devnull, "no-home-folder")
"""Where nothing can be read or written, by root neither: every try is an OSError."""


class NoHomeError(TandemError):
    """A user without a home folder, who has named no other place."""


def data_folder(environ: Mapping[str, str], uid: int) -> Path:
    """The folder of this user in this environment; it need not be there yet.

    Raises:
        NoHomeError: The user has none.

    >>> data_folder({"HOME": "/home/ada"}, 1000), data_folder({}, 0)
    (PosixPath('/home/ada/.local/share/tandem'), PosixPath('/var/lib/tandem'))
    """
    if environ.get("TANDEM_HOME"):
        return Path(environ["TANDEM_HOME"]).absolute()
    if uid == 0:
        return SYSTEM_DATA
    below = environ.get("XDG_DATA_HOME")
    home = _home(environ, uid)
    if not below and home == NOWHERE:
        raise NoHomeError(
            given=f"no home folder: HOME is not set, and this system knows no user of id {uid}",
            allowed="a folder to keep things in",
            todo="name one: TANDEM_HOME=/some/folder",
        )
    return (Path(below or home / ".local/share") / "tandem").absolute()


def cache_folder(environ: Mapping[str, str], uid: int) -> Path:
    """The folder of what can be made anew, below `NOWHERE` for a user without a home; it need not be there yet.

    >>> cache_folder({"HOME": "/home/ada"}, 1000)
    PosixPath('/home/ada/.cache/tandem')
    """
    return Path(environ.get("XDG_CACHE_HOME") or _home(environ, uid) / ".cache") / "tandem"


def _home(environ: Mapping[str, str], uid: int) -> Path:
    if environ.get("HOME"):
        return Path(environ["HOME"])
    try:
        return Path(pwd.getpwuid(uid).pw_dir)
    except KeyError:  # as in a container that was given a bare number
        return NOWHERE
