"""What a keeper is told about one attempt of a job: the contents of its `spec` file.

The file is a sequence of `key=value` fields, each ended by a NUL byte, so that every other byte (line ends, quotes,
any encoding) passes through unharmed. docs/reference/keeper.md lists the keys.
"""

import math
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from tandem.core.errors import TandemError, one_line


class JobSpecError(TandemError):
    """A job that cannot be described to its keeper."""


@dataclass(frozen=True, kw_only=True)
class User:
    """Whom the job runs as; only root can choose somebody else."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where the job's output goes: files that are appended to, made private (0600) and owned by the job's user.

    Attributes:
        stdout: An absolute path.
        stderr: An absolute path; the same as `stdout` makes both share one file.
        open_as_user: Open them with the job's user's rights (a path that the user chose), not with the keeper's.
        stdout_by_umask: Make it as a shell's redirection would: open to others as far as the job's umask says.
        stderr_by_umask: The same of stderr.
    """

    stdout: str = os.devnull
    stderr: str = os.devnull
    open_as_user: bool = False
    stdout_by_umask: bool = False
    stderr_by_umask: bool = False


@dataclass(frozen=True, kw_only=True)
class ByteRange:
    """A range of bytes in a lock file, held exclusively for the keeper's life."""

    path: str
    first: int
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class Locks:
    """What the keeper holds on behalf of the job, so that no other user's scheduler gives it out.

    Attributes:
        core_file: One byte per core is locked in it for `Spec.cores`; the locks follow a `pin` command.
        ranges: Further locks (slices of GPUs).
    """

    core_file: str | None = None
    ranges: tuple[ByteRange, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CgroupStep:
    """One step of making the job's control groups, carried out in order by the keeper.

    Attributes:
        kind: `parent` makes a shared directory (removed with its last group), `enter` makes a group that the job
            enters, `write` sets a file or fails, `try` sets a file if it can be set.
        path: The directory or the file.
        value: What is written.
    """

    kind: Literal["parent", "enter", "write", "try"]
    path: str
    value: str = ""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Properties that the job inherits; `rlimits` maps `resource.RLIMIT_*` to (soft, hard), -1 for none."""

    nice: int = 0
    umask: int | None = None
    rlimits: Mapping[int, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TimeLimit:
    """Where the keeper ends the job by itself, if no scheduler is there to do it.

    Attributes:
        run_s: How long the job may run; time during which it is suspended does not count.
        grace_s: From the first signal to SIGKILL.
        checkpoint: Name of the signal that makes it save its state, half the grace before SIGTERM; "" for none.
    """

    run_s: float
    grace_s: float
    checkpoint: str = ""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One attempt of a job.

    Attributes:
        argv: The program (searched in the `PATH` of `env`) and its arguments.
        env: The job's whole environment; the keeper adds `TANDEM_ATTEMPT`.
        cwd: The working directory, entered with the job's user's rights.
        output: Where stdout and stderr go.
        user: Whom to run as; None for the scheduler's own user.
        cores: The cores the job may run on; empty for all.
        locks: What is held while the keeper lives.
        cgroup: How its control groups are made (`tandem.core.process.cgroups`).
        limits: Niceness, umask, resource limits.
        time_limit: How long it may run without a scheduler; None for ever.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    output: Output = field(default_factory=Output)
    user: User | None = None
    cores: tuple[int, ...] = ()
    locks: Locks = field(default_factory=Locks)
    cgroup: tuple[CgroupStep, ...] = ()
    limits: Limits = field(default_factory=Limits)
    time_limit: TimeLimit | None = None

    def to_bytes(self) -> bytes:
        """Return the contents of the spec file.

        Raises:
            JobSpecError: There is no program, or a value holds a NUL byte or cannot be encoded.
        """
        if not self.argv or not self.argv[0]:
            raise JobSpecError(
                given="a job without a program", allowed="argv of at least one word", todo="name a program"
            )
        return b"".join(_field(key, value) for key, value in self._fields())

    def _fields(self) -> Iterator[tuple[str, str]]:
        yield from (("argv", word) for word in self.argv)
        for name, value in self.env.items():
            if not name or "=" in name:
                raise JobSpecError(
                    given=f"the environment variable {name!r}", allowed="a name without '='", todo="rename it"
                )
            yield "env", f"{name}={value}"
        yield "cwd", self.cwd
        yield "stdout", self.output.stdout
        yield "stderr", self.output.stderr
        for name in ("open_as_user", "stdout_by_umask", "stderr_by_umask"):
            if getattr(self.output, name):
                yield name, "1"
        if self.user is not None:
            yield "uid", str(self.user.uid)
            yield "gid", str(self.user.gid)
            yield "groups", ",".join(map(str, self.user.groups))
        if self.cores:
            yield "cores", ",".join(map(str, self.cores))
        if self.locks.core_file is not None:
            yield "core_lock", self.locks.core_file
        yield from (("lock", f"{lock.path}:{lock.first}+{lock.count}") for lock in self.locks.ranges)
        yield from map(_cgroup_field, self.cgroup)
        yield "nice", str(self.limits.nice)
        if self.limits.umask is not None:
            yield "umask", str(self.limits.umask)
        for number, (soft, hard) in self.limits.rlimits.items():
            yield "rlimit", f"{number}:{soft}:{hard}"
        if self.time_limit is not None:
            limit = self.time_limit
            number = signal.Signals[limit.checkpoint] if limit.checkpoint else 0
            yield "time_limit", f"{math.ceil(limit.run_s * 1000)}:{math.ceil(limit.grace_s * 1000)}:{number:d}"


_CGROUP_KEYS = {"parent": "cgroup_parent", "enter": "cgroup", "write": "write", "try": "try"}


def _cgroup_field(step: CgroupStep) -> tuple[str, str]:
    making = step.kind in {"parent", "enter"}
    return _CGROUP_KEYS[step.kind], step.path if making else f"{step.path}={step.value}"


def _field(key: str, value: str) -> bytes:
    try:
        encoded = os.fsencode(value)
    except UnicodeEncodeError as error:
        raise JobSpecError(
            given=f"{key} {one_line(ascii(value))}",
            allowed="text that can be encoded",
            todo="remove the lone surrogate",
        ) from error
    if b"\0" in encoded:
        raise JobSpecError(
            given=f"{key} {one_line(value)!r}",
            allowed="text without NUL bytes",
            todo="remove the NUL byte: no program can receive it",
        )
    return key.encode() + b"=" + encoded + b"\0"
