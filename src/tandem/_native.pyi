"""The compiled extension, absent where the package was installed without a C++ compiler."""

def cpu_features() -> list[str]:
    """Names of the vector instruction sets that may be used, as in /proc/cpuinfo."""

def copy_bandwidth(threads: int, bytes: int, seconds: float) -> float:
    """Streaming (triad) bandwidth in bytes/s of `threads` threads over `bytes` of arrays for `seconds`."""

def bubble_work(kind: str, reporter: bool, level: float, seconds: float, folder: str) -> int:
    """Operations that one kernel of `tandem.estimate.bubbles` does in this thread in about `seconds`."""
