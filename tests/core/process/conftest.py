"""Real keepers with real jobs, in every mode that this machine has."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from tandem.core.process import cgroups
from tandem.core.process import keeper as keepers
from tandem.core.process.spec import Output, Spec
from tests.core.process.attempts import ENV, Attempt, Launch

SOURCE = Path(keepers.__file__).with_name("keeper.cpp")
NO_SHARES = cgroups.Shares()
_number = count()


def _v1_only(folder: Path) -> cgroups.Layout:
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup2 " not in line]
    copy = folder / "mountinfo"
    copy.write_text("\n".join(mounts) + "\n")
    return cgroups.discover(mountinfo=copy)


def _modes() -> list[str]:
    found = cgroups.discover()
    return list(dict.fromkeys(["none", found.kind, *(["v1"] if found.v1 else [])]))


@pytest.fixture(params=_modes())
def layout(request: pytest.FixtureRequest, tmp_path: Path) -> cgroups.Layout:
    """Every way in which this machine can hold a job."""
    if request.param == "none":
        return cgroups.Layout()
    return _v1_only(tmp_path) if request.param == "v1" else cgroups.discover()


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The keeper that is installed, or one compiled now."""
    found = keepers.keeper_path()
    if found is not None:
        return found
    built = tmp_path_factory.mktemp("keeper") / "tandem-keeper"
    subprocess.run([shutil.which("c++") or "g++", "-std=c++17", "-O1", "-o", built, SOURCE], check=True)
    return built


@pytest.fixture
def command(native: Path) -> tuple[str, ...]:
    """How a keeper is started."""
    return (str(native),)


@pytest.fixture
def launch(command: tuple[str, ...], tmp_path: Path) -> Iterator[Launch]:
    """Start attempts; whatever they leave is killed at the end of the test."""
    attempts: list[Attempt] = []
    layouts: list[cgroups.Layout] = []
    prefix = f"test.{os.getpid()}."

    def start(
        *argv: str,
        layout: cgroups.Layout | None = None,
        shares: cgroups.Shares = NO_SHARES,
        keeper_env: dict[str, str] | None = None,
        spec: Spec | None = None,
    ) -> Attempt:
        key = f"{prefix}{next(_number)}"
        folder = tmp_path / key
        whole = spec or Spec(
            argv=argv, env=ENV, output=Output(stdout=str(tmp_path / "out"), stderr=str(tmp_path / "err"))
        )
        if layout is not None:
            layouts.append(layout)
            whole = replace(whole, cgroup=cgroups.steps(layout, key, shares), cores=shares.cores)
        attempt = Attempt(keepers.spawn(whole, folder, command=command, env=keeper_env), folder)
        attempts.append(attempt)
        return attempt

    yield start
    for attempt in attempts:
        attempt.kill()
    for used in layouts:
        cgroups.remove_stale(used, prefix, ())
