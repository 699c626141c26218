"""How fast the daemon takes jobs, starts them and gets through them, beside HyperQueue and Slurm.

Run: `python benchmarks/share_daemon.py [--quick] [--json] [--directory DIR]`. Everything is real: the daemon with its
database and keepers' journals on DIR's disk (default: $TMPDIR), one no-op job (`/bin/true`) a core at a time.

Figures: `submissions_per_s` (acknowledged and durable, in batches of 1,000; median of rounds), `start_p50_ms` (from the
request to the job's own first look at the clock, `date`, while 10,000 jobs wait for memory that another job holds),
`noop_jobs_per_s` (submit to the last end), and the same for the peers: `hyperqueue_noop_jobs_per_s`
(.venv-peers; it writes no journal), `slurm_noop_jobs_per_s` (the distribution's Slurm on loopback; it idles about a
second between two jobs of a core, so it is told that it has 64), `slurm_submissions_per_s` (one `sbatch` each).
`noop_vs_hyperqueue`, `noop_vs_slurm`: ratios over interleaved rounds, with their lower bounds `_low`; `noise_floor` is
Tandem's rounds against each other in percent. A peer that is not installed is said, and its figures are null.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import measuring, peer_slurm
from tandem.share import paths
from tandem.share.daemon.client import Client

ENVIRON = {"PATH": os.environ["PATH"]}
WAITING = 10_000
BATCH = 1000
ROUNDS = 7
SLURM_SLOTS = 64


@contextmanager
def tandem(folder: Path) -> Iterator[Client]:
    """A daemon of its own, with locks of its own: another daemon's jobs on this machine are noise, not a halt."""
    os.environ["TANDEM_LOCK_DIR"] = str(folder.parent)
    places = paths.home(folder, shared=os.geteuid() == 0)
    client = Client.connect(paths=places, options=["--engine-set", "membw=off"])
    try:
        yield client
    finally:
        client.down(kill=True)


def submissions_per_s(client: Client) -> float:
    """One batch of held jobs, which are cancelled afterwards."""
    jobs = [{"argv": ["/bin/true"], "hold": True}] * BATCH
    began = time.perf_counter()
    made = client.submit(jobs, environ=ENVIRON)
    took = time.perf_counter() - began
    client.cancel([job for one in made for job in one["ids"]])
    return BATCH / took


def noop_per_s(client: Client, jobs: int) -> float:
    """So many no-op jobs, from the request to the last end."""
    began = time.perf_counter()
    made = client.submit([{"argv": ["/bin/true"]}] * jobs, environ=ENVIRON)
    client.wait([job for one in made for job in one["ids"]])
    return jobs / (time.perf_counter() - began)


def start_ms(client: Client, samples: int) -> list[float]:
    """Submit-to-exec times while many jobs wait for the memory that one job holds."""
    memory = client.nodes()[0]["capacity"]["mem_mib"]
    [holder] = client.submit([{"argv": ["/bin/sleep", "1000"], "mem": f"{memory}M"}], environ=ENVIRON)[0]["ids"]
    for _ in range(WAITING // BATCH):
        client.submit([{"argv": ["/bin/true"], "mem": "1G", "expected": "10m"}] * BATCH, environ=ENVIRON)
    found = []
    for _ in range(samples):
        began = time.time()
        asked = {"argv": ["/bin/date", "+%s.%N"], "time": "10s", "expected": 1}
        [job] = client.submit([asked], environ=ENVIRON)[0]["ids"]
        client.wait([job])
        found.append(1e3 * (float(Path(client.log_path(job)["stdout"]).read_text()) - began))
    waiting = sum(job["state"] == "queued" for job in client.queue())
    if waiting < WAITING:
        sys.exit(f"only {waiting} of {WAITING} jobs were waiting: the measurement is void")
    client.cancel(every=True)
    client.wait([holder])
    return found


def hyperqueue(stack: ExitStack, folder: Path, cores: int) -> Callable[[int], float] | None:
    """HyperQueue's no-op jobs per second, or None where it is not installed."""
    python = measuring.ROOT / ".venv-peers" / "bin" / "python"
    if not python.exists():
        print("HyperQueue is not installed (`make peers`)")
        return None
    folder.mkdir()
    script = str(Path(__file__).with_name("peer_hyperqueue.py"))
    pipe = subprocess.PIPE
    words = [str(python), script, str(folder), str(cores)]
    process = stack.enter_context(
        subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout
    stack.callback(stdin.close)
    while (line := stdout.readline()) and line.strip() != "ready":
        pass

    def ask(jobs: int) -> float:
        stdin.write(f"{jobs}\n")
        stdin.flush()
        return jobs / float(stdout.readline().split()[1])

    return ask


def slurm(stack: ExitStack) -> peer_slurm.Slurm | None:
    """A running Slurm, or None where it is not installed."""
    lacking = peer_slurm.missing()
    if lacking:
        print(f"Slurm is not measured; missing: {', '.join(lacking)}")
        return None
    return stack.enter_context(peer_slurm.running(SLURM_SLOTS))


def measure(folder: Path, *, quick: bool) -> dict[str, float | None]:
    """Interleave the rounds of all systems; then Tandem's start times."""
    ours, theirs, slurms = (300, 300, 40) if quick else (1000, 1000, 150)
    rows: dict[str, list[float]] = {"tandem": [], "hyperqueue": [], "slurm": [], "submit": [], "sbatch": []}
    with ExitStack() as stack:
        cores = len(os.sched_getaffinity(0))
        client = stack.enter_context(tandem(folder / "tandem"))
        queue_peer, slurm_peer = hyperqueue(stack, folder / "hyperqueue", cores), slurm(stack)
        for index in range(ROUNDS):
            sides = [("tandem", lambda: noop_per_s(client, ours))]
            if queue_peer is not None:
                sides.append(("hyperqueue", lambda: queue_peer(theirs)))
            if slurm_peer is not None:
                sides.append(("slurm", lambda: slurms / slurm_peer.noop_s(slurms)))
                sides.append(("sbatch", lambda: 20 / slurm_peer.submit_s(20)))
            sides.append(("submit", lambda: submissions_per_s(client)))
            turned = index % len(sides)
            for name, run in sides[turned:] + sides[:turned]:
                rows[name].append(run())
            print("  ".join(f"{name} {values[-1]:.0f}/s" for name, values in rows.items() if values))
        starts = start_ms(client, 30 if quick else 200)
    return figures(rows, starts)


def figures(rows: dict[str, list[float]], starts: list[float]) -> dict[str, float | None]:
    """Medians and ratios."""
    middle = {name: statistics.median(values) if values else None for name, values in rows.items()}
    found: dict[str, float | None] = {
        "submissions_per_s": middle["submit"],
        "start_p50_ms": statistics.median(starts),
        "start_p90_ms": statistics.quantiles(starts, n=10)[-1],
        "noop_jobs_per_s": middle["tandem"],
        "hyperqueue_noop_jobs_per_s": middle["hyperqueue"],
        "slurm_noop_jobs_per_s": middle["slurm"],
        "slurm_submissions_per_s": middle["sbatch"],
        "noise_floor": measuring.noise_floor(rows["tandem"]),
    }
    for peer in ("hyperqueue", "slurm"):
        ratio = measuring.ratio(rows["tandem"], rows[peer]) if rows[peer] else None
        found[f"noop_vs_{peer}"] = ratio.mid if ratio is not None else None
        found[f"noop_vs_{peer}_low"] = ratio.low if ratio is not None else None
    return found


def main() -> None:
    """Measure and print."""
    parser = measuring.options(__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, help="whose disk the database is on (default: $TMPDIR)")
    options = parser.parse_args()
    print(f"{measuring.machine()}; commit {measuring.commit()}; {ROUNDS} rounds, systems interleaved")
    folder = Path(tempfile.mkdtemp(prefix="share-daemon-", dir=options.directory))
    try:
        found = measure(folder, quick=options.quick)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    measuring.finish(found, as_json=options.json)


if __name__ == "__main__":
    main()
