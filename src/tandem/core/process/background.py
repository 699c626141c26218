"""Work that goes on in a process of its own after its command has returned; the command knows first how it began.

>>> process = begin(lambda ready: serve(ready), "serve.log")  # doctest: +SKIP
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING

from tandem.core.errors import TandemError

if TYPE_CHECKING:
    from collections.abc import Callable

_READY = b"ready"


def begin(work: Callable[[Callable[[], None]], None], log: str) -> int:
    """Do some work in another process, without a terminal; return its id once it has called `ready`.

    Args:
        work: Called there with `ready`. It ends with it, and starts in the folder `/`.
        log: A file; what is written to standard output and error there is appended to it.

    Raises:
        TandemError: What `work` raised before it called `ready`, or that it ended.
        OSError: The log cannot be written.
    """
    writes = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    hears, tells = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process == 0:
        os.close(hears)
        _work(work, tells, writes)
    os.close(tells)
    os.close(writes)
    with os.fdopen(hears, "rb") as pipe:
        told = pipe.read()
    if told == _READY:
        return process
    os.waitpid(process, 0)
    if told:
        raise TandemError.from_dict(json.loads(told))
    raise TandemError(given="the process in the background ended", allowed="one that goes on", todo=f"see {log}")


def _work(work: Callable[[Callable[[], None]], None], tells: int, log: int) -> None:
    """What the other process does; does not return."""
    heard = False

    def say(told: bytes) -> None:
        nonlocal heard
        if not heard:
            heard = True
            os.write(tells, told)
            os.close(tells)

    status = 1
    try:
        os.setsid()
        os.chdir("/")
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
        work(lambda: say(_READY))
        status = 0
    except TandemError as error:
        print(error, file=sys.stderr)
        say(json.dumps(error.as_dict()).encode())
    except BaseException:  # its last words; nothing above may go on twice
        traceback.print_exc()
    finally:
        os._exit(status)
