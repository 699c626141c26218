"""Kills what a measurement left running: waits until standard input ends, as it does when whoever measured dies.

    python -m tandem.estimate.profiling.watcher FOLDER

Then every process that carries `TANDEM_ATTEMPT=FOLDER` in its environment is killed, and the folder removed.
"""

import shutil
import sys
from pathlib import Path


def main() -> None:
    """Wait, kill, remove."""
    folder = Path(sys.argv[1])
    sys.stdin.buffer.read()
    from tandem.core.process.strays import kill_strays  # only now: nothing is imported while somebody measures

    kill_strays(folder)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
