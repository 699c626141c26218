"""Recipes: what each of their numbers may be."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast, get_args, get_origin, get_type_hints

import pytest

from tandem.chat import recipe as recipes
from tandem.chat.recipe import Recipe
from tandem.core.errors import ConfigError

TABLES = "[sft]\nsteps = 1\n[reward]\nsteps = 1\n[rl]\nsteps = 1\n[rl.sparse_rollouts]\nzeros = 0.5\n[eval]\n"


def numbers_of(table: type, of: tuple[type, ...] = (int, float), at: str = "") -> Iterator[str]:
    """Every key of a recipe that takes a number of one of these kinds."""
    hints = get_type_hints(table)
    for one in dataclasses.fields(table):
        hint, key = hints[one.name], f"{at}{one.name}"
        kinds = {hint, *get_args(hint)}
        tables = [kind for kind in kinds if dataclasses.is_dataclass(kind)]
        if tables:
            first = ".0" if get_origin(hint) is tuple else ""
            yield from numbers_of(cast("type", tables[0]), of, f"{key}{first}.")
        elif kinds & set(of):
            yield key + (".1" if get_origin(hint) is tuple else "")


@pytest.mark.parametrize("value", ["nan", "-1", "inf"])
@pytest.mark.parametrize("key", list(numbers_of(Recipe)))
def test_every_number_of_a_recipe_has_a_range(key: str, value: str, recipe_file: Callable[[str], Path]) -> None:
    file = recipe_file(TABLES)
    file.write_text(file.read_text().replace("held_out = 0.2", "split = [1, 1, 1]"))
    recipes.load(file)
    if (key, value) == ("rl.sparse_rollouts.cap", "inf"):  # nothing is capped
        recipes.load(file, [f"{key}={value}"])
        return
    named = re.escape(key.replace(".0.", ".").removesuffix(".1"))
    with pytest.raises(ConfigError, match=named):
        recipes.load(file, [f"{key}={value}"])


@pytest.mark.parametrize("key", list(numbers_of(Recipe, (int,))))
def test_a_whole_number_that_nothing_could_use_is_refused_by_its_name(
    key: str, recipe_file: Callable[[str], Path]
) -> None:
    file = recipe_file(TABLES)
    for value in (10**23, 10**10) if key != "seed" else (10**23,):  # a seed may have 63 bits
        with pytest.raises(ConfigError, match=rf"a recipe that does not fit; allowed: .*{re.escape(key)} from \d to "):
            recipes.load(file, [f"{key}={value}"])
