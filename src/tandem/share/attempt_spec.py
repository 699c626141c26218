"""What a job's keeper is told: from the launch, the placement and the machine's protections."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from tandem.core.process import cgroups, locks
from tandem.core.process.spec import ByteRange, Limits, Locks, Output, Spec, User
from tandem.share.launch import THREAD_COUNTS, Launch
from tandem.share.model import Share

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


def core_locks(share: Share, kept: Collection[int]) -> Locks:
    """Return the locks of a placement's cores; `kept` are already held by suspended jobs of this daemon."""
    path = str(locks.lock_file("cores"))
    if not set(share.cores) & set(kept):
        return Locks(core_file=path)
    return Locks(ranges=tuple(ByteRange(path=path, first=core) for core in share.cores if core not in kept))


def keeper_spec(
    launch: Launch, share: Share, env: Mapping[str, str], held: Locks, layout: cgroups.Layout, key: str
) -> Spec:
    """Return the whole spec.

    Args:
        launch: How the job is started.
        share: What it holds on this node.
        env: See `environment`.
        held: See `gpu_locks` and `core_locks`.
        layout: Where control groups can be made.
        key: The name of this attempt's control group.
    """
    memory = share.need.mem_mib << 20 if share.need.mem_mib else None
    shares = cgroups.Shares(cores=share.cores, memory_bytes=memory)
    user = User(uid=launch.uid, gid=launch.gid, groups=launch.groups) if os.geteuid() == 0 else None
    return Spec(
        argv=launch.argv,
        env=env,
        cwd=launch.cwd,
        output=Output(stdout=launch.stdout, stderr=launch.stderr, open_as_user=True),
        user=user,
        cores=share.cores,
        locks=held,
        cgroup=cgroups.steps(layout, key, shares),
        limits=Limits(umask=launch.umask),
    )


def make_run_dir(launch: Launch) -> None:
    """Make the job's own folder, closed to others, and give it to the job's user."""
    folder = Path(launch.run_dir)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return
    if os.geteuid() == 0 and (launch.uid or launch.gid):
        os.chown(folder, launch.uid, launch.gid, follow_symlinks=False)
