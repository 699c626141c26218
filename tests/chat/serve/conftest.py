"""A run made for a moment, and its server as a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from tandem.chat import recipe as recipes
from tandem.chat.train import train
from tests.chat.small import write_rows

RECIPE = """
[model]
init = "tiny-llama"
width = 32
layers = 1
heads = 2
context_tokens = 4096
[data]
[[data.sources]]
path = "rows.jsonl"
[sft]
steps = 1
batch_tokens = 64
"""

Served = Callable[..., AbstractContextManager[tuple[dict[str, Any], "subprocess.Popen[str]"]]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the models `start` and `sft`."""
    return run_in(tmp_path_factory.mktemp("served"))


def run_in(folder: Path, *overrides: str) -> Path:
    """Make a run with the models `start` and `sft` in a folder."""
    write_rows(folder / "rows.jsonl")
    (folder / "recipe.toml").write_text(RECIPE)
    train(recipes.load(folder / "recipe.toml", overrides), folder / "run", recipe_folder=folder)
    return folder / "run"


@pytest.fixture(scope="module")
def served(run: Path) -> Served:
    """Starts a server; gives what its first line says, and the process."""

    @contextmanager
    def start(*options: str, run: Path = run) -> Iterator[tuple[dict[str, Any], "subprocess.Popen[str]"]]:
        argv = [sys.executable, "-m", "tandem", "chat", "serve", str(run), "--port", "0", "--json", *options]
        process = subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.stderr and process.stderr.read()
            yield json.loads(line), process
        finally:
            process.terminate()
            process.communicate(timeout=60)

    return start


@pytest.fixture(scope="module")
def server(served: Served) -> Iterator[dict[str, Any]]:
    """One server for a module's tests."""
    with served() as (told, process):
        yield {**told, "pid": process.pid}


@pytest.fixture
def client(server: dict[str, Any]) -> Iterator[openai.OpenAI]:
    """The real client, with the server's token."""
    key = Path(server["token_file"]).read_text().strip()
    with openai.OpenAI(base_url=server["url"], api_key=key, max_retries=0, timeout=120) as client:
        yield client
