"""Where a user's things are kept between commands: profiles, calibrations, and what a daemon stores.

`TANDEM_HOME` decides where it is set; else root's are in `/var/lib/tandem`, and a user's in `$XDG_DATA_HOME/tandem`.
"""

from collections.abc import Mapping
from pathlib import Path

SYSTEM_DATA = Path("/var/lib/tandem")


def data_folder(environ: Mapping[str, str], uid: int) -> Path:
    """The folder of this user in this environment; it need not be there yet.

    >>> data_folder({"HOME": "/home/ada"}, 1000), data_folder({}, 0)
    (PosixPath('/home/ada/.local/share/tandem'), PosixPath('/var/lib/tandem'))
    """
    if environ.get("TANDEM_HOME"):
        return Path(environ["TANDEM_HOME"]).absolute()
    if uid == 0:
        return SYSTEM_DATA
    data_home = environ.get("XDG_DATA_HOME") or str(Path(environ.get("HOME") or "~").expanduser() / ".local/share")
    return (Path(data_home) / "tandem").absolute()
