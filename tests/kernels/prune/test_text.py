"""Tokens of a file, and windows of tokens."""

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tandem.kernels.prune.errors import PruneError
from tandem.kernels.prune.text import Bytes, calibration_batches, read


@pytest.mark.slow
@given(st.integers(2, 5000), st.integers(1, 40), st.integers(2, 300))
def test_windows_are_pieces_of_the_text_that_do_not_overlap(tokens: int, samples: int, length: int) -> None:
    batches_BT = calibration_batches(torch.arange(tokens), samples, length)
    windows = [window for ids_BT in batches_BT for window in ids_BT.tolist()]
    length = min(length, tokens)
    assert len(windows) == min(samples, tokens // length)
    assert all(window == list(range(window[0], window[0] + length)) for window in windows)
    assert all(b[0] >= a[0] + length for a, b in itertools.pairwise(windows))
    assert windows[0][0] == 0


def test_windows_are_spread_over_the_whole_text() -> None:
    (ids_BT,) = calibration_batches(torch.arange(1000), 4, 10)
    assert ids_BT[:, 0].tolist() == [0, 250, 500, 750]


def test_bytes_are_their_own_tokens(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(bytes(range(256)))
    assert read(tmp_path / "t", Bytes(256), 256, "the text").tolist() == list(range(256))


def test_texts_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "short").write_bytes(b"a")
    (tmp_path / "high").write_bytes(b"ab")
    for name, words in (
        ("empty", "has 0 tokens"),
        ("short", "has 1 tokens"),
        ("nothing", "No such file"),
        (".", "Is a directory"),
    ):
        with pytest.raises(PruneError, match=words):
            read(tmp_path / name, Bytes(256), 256, "the text")
    with pytest.raises(PruneError, match="gives token 98, and the model knows 98"):
        read(tmp_path / "high", Bytes(256), 98, "the text")


def test_fewer_tokens_than_bytes_need_a_tokenizer() -> None:
    with pytest.raises(PruneError, match="a model of 255 tokens without a tokenizer"):
        Bytes(255)
