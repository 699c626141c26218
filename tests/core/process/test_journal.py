"""Journals are read as they are, torn lines included."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.core.process import journal
from tandem.core.process.journal import Fate, ProcessId, Usage

WHOLE = "claim 10 111 boot-1 1.5\npid 11 112 2.5\nexit 3 0 0.25 0.5 100 9.5\n"


def test_a_whole_journal() -> None:
    assert journal.parse(WHOLE) == Fate(
        claimed=True,
        keeper=ProcessId(pid=10, start_ticks=111),
        boot_id="boot-1",
        process=ProcessId(pid=11, start_ticks=112),
        started_at=2.5,
        exit_code=3,
        signal=0,
        usage=Usage(user_s=0.25, system_s=0.5, max_rss_bytes=102400),
        ended_at=9.5,
    )


def test_kills_for_want_of_memory_are_read() -> None:
    fate = journal.parse(WHOLE.replace("exit", "memory-kills 2 65536\nexit"))
    assert (fate.memory_kills, fate.memory_limit_bytes, fate.exit_code) == (2, 65536, 3)
    assert (journal.parse(WHOLE).memory_kills, journal.parse(WHOLE).memory_limit_bytes) == (0, 0)


@given(st.integers(0, len(WHOLE)))
def test_a_torn_journal_says_what_its_whole_lines_say(length: int) -> None:
    torn = WHOLE[:length]
    whole_lines = torn[: torn.rfind("\n") + 1]
    assert journal.parse(torn) == journal.parse(whole_lines)


def test_why_nothing_was_executed() -> None:
    assert journal.parse("claim 1 2 b 3\nexec-failed 2 cannot execute 'a b'\n").exec_error == (
        2,
        "cannot execute 'a b'",
    )
    assert journal.parse("claim 1 2 b 3\nbusy /run/lock/a b/cores 7\n").busy == ("/run/lock/a b/cores", 7)
    assert journal.parse("claim 1 2 b 3\nnews of a later version\n").claimed


@pytest.mark.parametrize(
    ("text", "state"),
    [
        (None, "unclaimed"),
        ("claim 1 2 b 3\n", "lost"),
        ("claim 1 2 b 3\npid 4 5 6.0\n", "lost"),
        ("claim 1 2 b 3\npid 4 5 6.0\nexit 0 0 0 0 0 7.0", "lost"),  # the last line is torn
        (WHOLE, "ended"),
    ],
)
def test_the_state_without_a_living_keeper(tmp_path: Path, text: str | None, state: str) -> None:
    if text is not None:
        (tmp_path / "journal").write_text(text)
    assert not journal.keeper_alive(tmp_path)
    assert journal.state(tmp_path) == state


def test_a_reused_process_id_is_no_keeper(tmp_path: Path) -> None:
    """A journal that names a living process, but nobody holds its lock: the id belongs to somebody else now."""
    start = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    (tmp_path / "journal").write_text(f"claim {os.getpid()} {start} b 3\npid {os.getpid()} {start} 6.0\n")
    assert journal.state(tmp_path) == "lost"
