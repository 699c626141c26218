"""Traces for tests: the real ones where they are, otherwise files of the same shape made here."""

import csv
import os
import random
from datetime import datetime, timedelta
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[3]


def _real(name: str) -> Path | None:
    folder = Path(os.environ.get("TANDEM_SHARED_DATA") or _ROOT.parent / "shared" / "data")
    path = folder / "traces" / name
    return path if path.is_file() else None


@pytest.fixture(scope="session")
def philly_trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Philly trace, or 82,247 made rows."""
    real = _real("philly.csv")
    if real:
        return real
    rng = random.Random(1)
    path = tmp_path_factory.mktemp("philly") / "philly.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["timestamp", "duration", "num_gpus", "gpu_time", "cluster"])
        for _ in range(82_247):
            at = datetime(2017, 9, 4) + timedelta(seconds=rng.randrange(9_400_000))
            gpus = rng.choices([1, 2, 4, 8, 12, 16, 128], [93, 2, 2, 2, 0.1, 0.2, 0.01])[0]
            took = float(min(4_628_226, 1 + int(rng.lognormvariate(7.0, 2.4))))
            rows.writerow([at, took, gpus, took * gpus, f"{rng.randrange(15):06x}"])
    return path


@pytest.fixture(scope="session")
def openb_trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The openb pods with the nodes beside them, or 8,152 made pods on 1,523 made nodes."""
    real = _real("openb_pods.csv")
    if real and _real("openb_nodes.csv"):
        return real
    rng = random.Random(1)
    folder = tmp_path_factory.mktemp("openb")
    with (folder / "openb_nodes.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["sn", "cpu_milli", "memory_mib", "gpu", "model"])
        for i in range(1_523):
            gpus, model = rng.choice([(0, ""), (2, "T4"), (8, "G2")])
            rows.writerow([f"openb-node-{i:04d}", 96_000, 393_216, gpus, model])
    with (folder / "openb_pods.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        header = ["name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "gpu_spec", "qos", "pod_phase"]
        rows.writerow([*header, "creation_time", "deletion_time", "scheduled_time"])
        for i in range(8_152):
            gpus = rng.choices([0, 1, 8], [13, 86, 1])[0]
            milli = rng.choice([230, 460, 1000]) if gpus == 1 else 1000 * (gpus > 0)
            at = rng.randrange(12_000_000)
            scheduled = rng.choice(["", at, at + 5])
            end = at + 5 + int(rng.lognormvariate(6.0, 2.0))
            need = [rng.choice([4_000, 12_000]), 16_384, gpus, milli, ""]
            rows.writerow([f"openb-pod-{i:04d}", *need, rng.choice(["LS", "BE"]), "Running", at, end, scheduled])
    return folder / "openb_pods.csv"
