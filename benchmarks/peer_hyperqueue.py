"""HyperQueue as a peer: a server with one worker in this process. Run by the interpreter of .venv-peers.

    .venv-peers/bin/python benchmarks/peer_hyperqueue.py FOLDER CORES

Reads one number a line: so many jobs of `/bin/true` are submitted as the tasks of one job and waited for. Answers each
with "SUBMIT_S TOTAL_S". HyperQueue keeps nothing on disk here (its journal is off by default), Tandem does.
"""

import sys
import time
from pathlib import Path

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig


def main(folder: Path, cores: int) -> None:
    """Serve rounds until the input ends."""
    with LocalCluster(str(folder), WorkerConfig(cores=cores)) as cluster:
        client = cluster.client()
        print("ready", flush=True)
        for line in sys.stdin:
            job = Job(default_workdir=folder)
            tasks = [job.program(["/bin/true"]) for _ in range(int(line))]
            done = folder / "done"
            job.program(["/bin/touch", str(done)], deps=tasks)  # its own waiting looks only once a second
            began = time.perf_counter()
            client.submit(job)
            accepted = time.perf_counter()
            while not done.exists():
                time.sleep(0.001)
            print(accepted - began, time.perf_counter() - began, flush=True)
            done.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
