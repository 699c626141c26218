"""The compiled extension, absent where the package was installed without a C++ compiler."""

def cpu_features() -> list[str]:
    """Names of the vector instruction sets that may be used, as in /proc/cpuinfo."""

def copy_bandwidth(threads: int, bytes: int, seconds: float) -> float:
    """Streaming (triad) bandwidth in bytes/s of `threads` threads over `bytes` of arrays for `seconds`."""
