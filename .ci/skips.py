"""Fail when a test was skipped that this machine could have run.

Usage: `python .ci/skips.py build/junit-*.xml`. A skip is accepted only where `requires(NAME)` of
tests/conftest.py made it and NAME is in the allow-list below; its probe has found by then that the
machine really lacks the thing.
"""

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

ALLOWED = {"gpu", "cuda_core", "nvcc", "cgroup", "fuse"}


def unexpected(report: ElementTree.Element) -> list[str]:
    """Return a line for each skipped (or expected-to-fail) test whose reason is not in the allow-list."""
    found = []
    for case in report.iter("testcase"):
        for skipped in case.iter("skipped"):
            reason = skipped.get("message", "")
            match = re.match(r"requires (\w+): ", reason)
            if match is None or match[1] not in ALLOWED:
                found.append(f"{case.get('classname')}::{case.get('name')}: {reason}")
    return found


def main(path: Path) -> int:
    """Print what was skipped without leave; return the exit code."""
    root = ElementTree.parse(path).getroot()
    if next(root.iter("testcase"), None) is None:
        print(f"{path} holds no test", file=sys.stderr)
        return 1
    lines = unexpected(root)
    for line in lines:
        print(f"skipped without leave: {line}", file=sys.stderr)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(max(main(Path(one)) for one in sys.argv[1:]))
