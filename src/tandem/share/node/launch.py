"""How a job's programme is started: everything the engine needs and the state machine does not.

A launch is kept apart from the job, because only its owner may see it: arguments, folder, environment and output
paths. Every attempt of a job uses the same launch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Self

from tandem.core.process.spec import TimeLimit

THREAD_COUNTS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "TORCH_NUM_THREADS",
)
"""Variables that hold a number of threads. They follow the placement unless the submission itself sets them."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One job's command line and surroundings.

    Attributes:
        argv: The command line; ``argv[0]`` is looked up in the job's ``PATH``.
        cwd: Working folder, absolute.
        environ: The submitter's whole environment (the same for many jobs).
        env: Variables that the submission sets by itself; they win over ``environ``.
        uid: Numeric user the programme runs as.
        gid: Numeric group it runs as.
        groups: Supplementary groups it runs with.
        umask: Mode bits that new files do not get.
        stdout: Path of the file that standard output is appended to.
        stderr: Path of the file that standard error is appended to; may be ``stdout``.
        run_dir: ``TANDEM_RUN_DIR``: where the programme may append records.
        time_limit: Where its keeper ends it if no daemon is there; the job's own, not stored here again.
    """

    argv: tuple[str, ...]
    cwd: str
    environ: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    umask: int = 0o022
    stdout: str = ""
    stderr: str = ""
    run_dir: str = ""
    time_limit: TimeLimit | None = None

    def environment(self) -> dict[str, str]:
        """Return the environment as the submission asked for it, before what the placement adds."""
        return {**self.environ, **self.env}

    def moved_to(self, run_dir: str) -> Self:
        """Return the same with the run folder there: what lay in its data folder, two above, lies in the one there.

        >>> Launch(("x",), "/work", stdout="/a/jobs/7/stdout", run_dir="/a/jobs/7").moved_to("/b/jobs/7").stdout
        '/b/jobs/7/stdout'
        """
        if run_dir == self.run_dir or not self.run_dir:
            return self
        before, now = (PurePath(folder).parent.parent for folder in (self.run_dir, run_dir))

        def there(path: str) -> str:
            lay = PurePath(path)
            inside = lay.is_relative_to(before) and ".." not in lay.parts
            return str(now / lay.relative_to(before)) if inside else path

        out, err = there(self.stdout), there(self.stderr)
        return replace(self, cwd=there(self.cwd), stdout=out, stderr=err, run_dir=run_dir)
