"""What every test may use: `requires(...)` for things a machine may lack, and a run folder of the test's own.

A test says what it needs with `@requires("gpu")` after `from tests.conftest import requires`; CI
accepts a skip only for the needs listed in .ci/skips.py.
"""

import ctypes
import ctypes.util
import functools
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

_CAP_SYS_ADMIN = 21

# Derandomised: a run of the suite is reproducible; no deadline: the machine may be busy with other things.
settings.register_profile("tandem", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("tandem")


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background: what is tested would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)


@functools.cache
def _has_gpu() -> bool:
    """Ask the driver itself, not the code under test."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


@functools.cache
def _has_cuda_core() -> bool:
    return importlib.util.find_spec("cuda") is not None and importlib.util.find_spec("cuda.core") is not None


def nvcc() -> str | None:
    """Return CUDA's compiler, where there is one."""
    return shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")


@functools.cache
def _has_writable_cgroup() -> bool:
    roots = [Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/freezer"), Path("/sys/fs/cgroup/unified")]
    return any((root / "cgroup.procs").exists() and os.access(root / "cgroup.procs", os.W_OK) for root in roots)


@functools.cache
def _can_mount() -> bool:
    """Whether the kernel lets this process mount a FUSE file system, libfuse or not."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    if os.geteuid():
        return shutil.which("fusermount3") is not None or shutil.which("fusermount") is not None
    rights = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:"))
    return bool(int(rights.split()[1], 16) >> _CAP_SYS_ADMIN & 1)


@functools.cache
def _has_libfuse() -> bool:
    return ctypes.util.find_library("fuse3") is not None and shutil.which("fusermount3") is not None


@functools.cache
def _has_sanitizers() -> bool:
    """Whether g++ makes programmes with AddressSanitizer and ThreadSanitizer that run here."""
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("address", "thread"):
            command = ["g++", "-x", "c++", "-", f"-fsanitize={kind}", "-o", f"{folder}/{kind}"]
            try:
                subprocess.run(command, input=b"int main() {}", check=True, capture_output=True)
                subprocess.run(["setarch", "-R", f"{folder}/{kind}"], check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError):
                return False
    return True


_NEEDS: dict[str, tuple[Callable[[], bool], str]] = {
    "gpu": (_has_gpu, "this machine has no NVIDIA GPU with a driver"),
    "cuda_core": (_has_cuda_core, "cuda-core (the extra gpu) is not installed"),
    "sanitizers": (_has_sanitizers, "g++ with its sanitizers, or setarch, is not installed (Debian: apt install g++)"),
    "nvcc": (lambda: nvcc() is not None, "CUDA's compiler is not installed"),
    "fuse": (_can_mount, "no FUSE file system can be mounted here"),
    "libfuse": (_has_libfuse, "libfuse 3 and fusermount3 are not installed (Debian: apt install fuse3)"),
    "root": (lambda: os.geteuid() == 0, "only root may become another user, and give files away"),
    "cgroup": (_has_writable_cgroup, "no control group can be written here"),
}


def requires(*needs: str) -> pytest.MarkDecorator:
    """Skip a test where the machine lacks one of `needs`, which are in the list above ("gpu", "root", "cgroup", ...).

    Raises:
        KeyError: A need that is not in the list above.
    """
    lacking = [f"requires {need}: {_NEEDS[need][1]}" for need in needs if not _NEEDS[need][0]()]
    return pytest.mark.skipif(bool(lacking), reason=lacking[0] if lacking else "")


@pytest.fixture(autouse=True)
def _no_run_folder_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that is itself a job's child must not write records into that job's folder."""
    monkeypatch.delenv("TANDEM_RUN_DIR", raising=False)
