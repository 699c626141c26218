"""What torchrun starts in a test that needs many runs: one after the other, with everything imported once.

Usage: python -m tests.chat.forked_runs FILE, which holds a list of `Run` as JSON. Each run is forked off; of its ranks,
which may be fewer than were started, it finds the others under a prefix of its own in the launcher's store.
"""

import importlib
import json
import os
import sys
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from tandem.chat import recipe as recipes
from tandem.chat.train import train
from tandem.learn import joining, strategy

LLAMA = "transformers.models.llama"
IMPORTED = ("peft", "tandem.chat.page", "transformers.models.auto.modeling_auto", f"{LLAMA}.modeling_llama")
"""What a run would import by and by, before anything is forked off."""


@dataclass(frozen=True)
class Run:
    """A run of `tandem chat train`.

    Attributes:
        recipe: Its file.
        folder: Where it goes.
        ranks: How many take part.
        overrides: Of the recipe.
        env: Variables it has beside the launcher's.
        fails: Whether it is to end by an error.
    """

    recipe: str
    folder: str
    ranks: int
    overrides: list[str]
    env: dict[str, str] = field(default_factory=dict)
    fails: bool = False


def written(runs: list[Run], file: Path) -> Path:
    """Write runs down for a launcher to find."""
    file.write_text(json.dumps([asdict(run) for run in runs]))
    return file


def met(prefix: str, url: str) -> Iterator[tuple[Store, int, int]]:
    """Find the other ranks in a corner of the launcher's store, where no run has been before."""
    for store, rank, size in rendezvous(url):
        yield PrefixStore(prefix, store), rank, size


def done(number: int, run: Run) -> bool:
    """Fork a run off, and say whether it ended as it was to."""
    if int(os.environ["RANK"]) >= run.ranks:
        return True
    pid = os.fork()
    if pid == 0:
        os.environ |= {"WORLD_SIZE": str(run.ranks), **run.env}
        joining.rendezvous = partial(met, f"run {number}")
        status = 1
        try:
            file = Path(run.recipe)
            train(recipes.load(file, run.overrides), Path(run.folder), recipe_folder=file.parent)
            status = 0
        except BaseException:
            if not run.fails:
                traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return bool(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])) == run.fails


def main(file: Path) -> int:
    """Do all runs; return how many did not end as they were to."""
    runs = [Run(**found) for found in json.loads(file.read_text())]
    for name in ("fsdp", "zero3"):
        strategy.load(name)
    for name in IMPORTED:
        importlib.import_module(name)
    failed = [run.folder for number, run in enumerate(runs) if not done(number, run)]
    if failed:
        print("runs that did not end as they were to:", *failed, file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
