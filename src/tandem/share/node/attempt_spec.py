"""What a job's keeper is told: from the launch, the placement and the machine's protections."""

import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from tandem.core.errors import DaemonError
from tandem.core.process import cgroups, locks
from tandem.core.process.spec import ByteRange, CgroupStep, Limits, Locks, Output, Spec, User
from tandem.share.model import Share
from tandem.share.node.launch import THREAD_COUNTS, Launch

_PLACEHOLDER = "@attempt@"
_PLANS_MOST = 1000

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def environment(job: int, attempt: int, launch: Launch, share: Share, uuids: Mapping[int, str]) -> dict[str, str]:
    """Return the job's environment: the submission's, then what the placement says.

    Numbers of threads that the submission sets by itself stay; `CUDA_VISIBLE_DEVICES` is always the placement's.
    """
    count = str(max(1, len(share.cores) or share.need.cpu_milli // 1000))
    env = {"PATH": DEFAULT_PATH, **dict.fromkeys(THREAD_COUNTS, count), **launch.environment()}
    return env | {
        "TANDEM_RUN_DIR": launch.run_dir,
        "TANDEM_JOB_ID": str(job),
        "TANDEM_ATTEMPT_NUMBER": str(attempt),
        "TANDEM_CORES": ",".join(map(str, share.cores)),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": ",".join(uuids.get(gpu) or str(gpu) for gpu in share.gpus),
    }


def gpu_locks(
    share: Share, slots_taken: Mapping[int, Collection[int]]
) -> tuple[tuple[ByteRange, ...], dict[int, frozenset[int]]]:
    """Return the locks of a placement's GPUs, and the hundredths of each GPU that they cover.

    Args:
        share: What the job holds.
        slots_taken: GPU -> hundredths that others hold. A fraction takes the lowest free ones.
    """
    ranges: list[ByteRange] = []
    mine: dict[int, frozenset[int]] = {}
    for gpu in share.gpus:
        if not share.need.gpu_milli:
            ranges.append(locks.gpu_range(gpu))
            mine[gpu] = frozenset(range(locks.GPU_SLOTS))
            continue
        count = max(1, share.need.gpu_milli * locks.GPU_SLOTS // 1000)  # rounded down: shares of a whole always fit
        free = [slot for slot in range(locks.GPU_SLOTS) if slot not in slots_taken.get(gpu, ())]
        chosen = (free + [slot for slot in range(locks.GPU_SLOTS) if slot not in free])[:count]
        ranges += [locks.gpu_range(gpu, first_slot=slot, slots=1) for slot in chosen]
        mine[gpu] = frozenset(chosen)
    return tuple(ranges), mine


def keeper_spec(
    launch: Launch, share: Share, env: Mapping[str, str], held: Locks, groups: tuple[CgroupStep, ...]
) -> Spec:
    """Return the whole spec.

    Args:
        launch: How the job is started.
        share: What it holds on this node.
        env: See `environment`.
        held: Its cores' lock file and GPU ranges (see `gpu_locks`).
        groups: How its control groups are made; see `CgroupPlans`.
    """
    output = Output(
        stdout=launch.stdout,
        stderr=launch.stderr,
        open_as_user=True,
        stdout_by_umask=_is_chosen(launch.stdout, launch),
        stderr_by_umask=_is_chosen(launch.stderr, launch),
    )
    user = User(uid=launch.uid, gid=launch.gid, groups=launch.groups) if os.geteuid() == 0 else None
    return Spec(
        argv=launch.argv,
        env=env,
        cwd=launch.cwd,
        output=output,
        user=user,
        cores=share.cores,
        locks=held,
        cgroup=groups,
        limits=Limits(umask=launch.umask),
        time_limit=launch.time_limit,
    )


def _is_chosen(output: str, launch: Launch) -> bool:
    """Whether the user named this file: what lies in the job's own folder stays private."""
    return not output.startswith(f"{launch.run_dir}/")


class CgroupPlans:
    """The steps that make an attempt's control groups, worked out once for each size and set of cores."""

    def __init__(self, layout: cgroups.Layout) -> None:
        self._layout = layout
        self._plans: dict[tuple[tuple[int, ...], int], tuple[CgroupStep, ...]] = {}

    def steps(self, key: str, share: Share) -> tuple[CgroupStep, ...]:
        """Return the steps for the group called `key`, a name that no other attempt on this machine has."""
        size = (share.cores, share.need.mem_mib)
        if size not in self._plans:
            if len(self._plans) > _PLANS_MOST:
                self._plans.clear()
            memory = share.need.mem_mib << 20 if share.need.mem_mib else None
            shares = cgroups.Shares(cores=share.cores, memory_bytes=memory)
            self._plans[size] = cgroups.steps(self._layout, _PLACEHOLDER, shares)
        return tuple(replace(step, path=step.path.replace(_PLACEHOLDER, key)) for step in self._plans[size])


def make_run_dir(launch: Launch) -> None:
    """Make the job's own folder, closed to others, and give it to the job's user.

    Raises:
        DaemonError: It cannot be made there, now or later.
        OSError: It cannot be made just now.
    """
    folder = Path(launch.run_dir)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise DaemonError(
            given=f"the job's own folder {folder}, which cannot be made ({error.strerror})",
            allowed="a data folder that is whole and the daemon's own",
            todo=f"make {folder.parent} anew and start the daemon again, then submit the job again",
        ) from error
    if os.geteuid() == 0 and (launch.uid or launch.gid):
        os.chown(folder, launch.uid, launch.gid, follow_symlinks=False)
