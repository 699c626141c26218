"""Stdout holds a command's answer alone, whatever its libraries say when they are imported."""

from __future__ import annotations

import os
from pathlib import Path


def hush_deepspeed() -> None:
    """Answer for DeepSpeed which accelerator it has, where there is no GPU.

    transformers and PEFT import it where it is installed, and it tells stdout that it found none. Only for who computes
    in this process: jobs inherit the environment of the command that submits them.
    """
    if not Path("/proc/driver/nvidia").exists():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
