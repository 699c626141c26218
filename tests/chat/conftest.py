"""One thread for every test here, small models of four families, and a run small enough for a test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tandem.kernels.sparse import tuning
from tests.chat.small import write_rows


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Torch computes in the test's own thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _own_tuning(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sparse layers measure into a folder of the test's own."""
    monkeypatch.setenv("TANDEM_SPARSE_TUNING", str(tmp_path_factory.mktemp("tuning")))
    tuning.forget()


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    """Rows that serve every phase."""
    return write_rows(tmp_path / "rows.jsonl")


@pytest.fixture
def recipe_file(tmp_path: Path, rows_file: Path) -> Callable[[str], Path]:
    """Writes a recipe: the model and the data, and the stages that are given."""

    def write(stages: str) -> Path:
        file = tmp_path / "recipe.toml"
        model = '[model]\ninit = "tiny-llama"\nwidth = 16\nlayers = 1\nheads = 2\ncontext_tokens = 32\n'
        data = f'[data]\nheld_out = 0.2\n[[data.sources]]\npath = "{rows_file.name}"\n'
        file.write_text(f"save_every_steps = 2\n{model}{data}{stages}")
        return file

    return write
