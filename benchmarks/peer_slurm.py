"""Slurm as a peer: munged, slurmctld and slurmd of the distribution on loopback, one node, in a temporary folder.

Needs root and the packages slurmctld, slurmd, slurm-client and munge. Jobs are `/bin/true`, as one array.
"""

import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "sinfo")
START_S = 30.0

_CONFIG = """
ClusterName=peer
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=27817
SlurmdPort=27818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1,default_queue_depth=100000
CompleteWait=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MaxArraySize=10001
MaxJobCount=20000
MinJobAge=2
NodeName=localhost NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """Return what is needed and not installed."""
    lacking = [program for program in PROGRAMS if _which(program) is None]
    return lacking if os.geteuid() == 0 else [*lacking, "root"]


class Slurm:
    """A running Slurm."""

    def __init__(self, folder: Path) -> None:
        self._env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self._folder = folder

    def up(self) -> bool:
        """Whether the node takes jobs."""
        return self._run("sinfo", "-h", "-o", "%T") == "idle"

    def noop_s(self, jobs: int) -> float:
        """Return the seconds from submitting an array of so many jobs to the end of the last."""
        began = time.perf_counter()
        array = f"--array=0-{jobs - 1}"
        self._run("sbatch", "-Q", "--parsable", "-o", "/dev/null", array, "--wrap", "exec /bin/true")
        while self._run("squeue", "-h", "-t", "PD,R,CG", "-o", "%i"):
            time.sleep(0.02)
        return time.perf_counter() - began

    def submit_s(self, jobs: int) -> float:
        """Return the seconds for so many held submissions, one `sbatch` each."""
        began = time.perf_counter()
        for _ in range(jobs):
            self._run("sbatch", "-Q", "--parsable", "--hold", "-o", "/dev/null", "--wrap", "exec /bin/true")
        took = time.perf_counter() - began
        self._run("scancel", "--state=PENDING", "-u", "root")
        return took

    def _run(self, *words: str) -> str:
        command = [_which(words[0]) or words[0], *words[1:]]
        done = subprocess.run(command, env=self._env, cwd=self._folder, capture_output=True, text=True, check=False)
        return done.stdout.strip()


@contextmanager
def running(cores: int) -> Iterator[Slurm]:
    """Start Slurm, and stop it at the end.

    Raises:
        RuntimeError: It does not come up.
    """
    folder = Path(tempfile.mkdtemp(prefix="peer-slurm-"))
    started: list[subprocess.Popen[bytes]] = []
    try:
        for name in ("state", "spool"):
            (folder / name).mkdir(mode=0o755)
        folder.chmod(0o755)
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        (folder / "slurm.conf").write_text(_CONFIG.format(folder=folder, cores=cores))
        where = [
            f"--{what}={folder}/munge.{what.split('-')[0]}"
            for what in ("key-file", "log-file", "pid-file", "seed-file")
        ]
        munged = [*where, f"--socket={folder}/munge.socket", "--force", "--foreground"]
        _start(started, folder, "munged", *munged)
        _wait(lambda: (folder / "munge.socket").exists(), folder)
        _start(started, folder, "slurmctld", "-D", "-f", f"{folder}/slurm.conf")
        _start(started, folder, "slurmd", "-D", "-N", "localhost", "-f", f"{folder}/slurm.conf")
        slurm = Slurm(folder)
        _wait(slurm.up, folder)
        yield slurm
    finally:
        for process in reversed(started):
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _start(started: list[subprocess.Popen[bytes]], folder: Path, program: str, *words: str) -> None:
    with (folder / "log").open("ab") as log:
        started.append(subprocess.Popen([_which(program) or program, *words], stdout=log, stderr=log, cwd=folder))


def _wait(ready: object, folder: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if callable(ready) and ready():
            return
        time.sleep(0.05)
    message = f"Slurm did not come up: {(folder / 'log').read_text()[-1000:]}"
    raise RuntimeError(message)


def _which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
