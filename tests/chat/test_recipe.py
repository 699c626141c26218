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


def numbers_of(table: type, at: str = "") -> Iterator[str]:
    """Every key of a recipe that takes a number."""
    hints = get_type_hints(table)
    for one in dataclasses.fields(table):
        hint, key = hints[one.name], f"{at}{one.name}"
        kinds = {hint, *get_args(hint)}
        tables = [kind for kind in kinds if dataclasses.is_dataclass(kind)]
        if tables:
            first = ".0" if get_origin(hint) is tuple else ""
            yield from numbers_of(cast("type", tables[0]), f"{key}{first}.")
        elif kinds & {int, float}:
            yield key + (".1" if get_origin(hint) is tuple else "")


@pytest.mark.parametrize("value", ["nan", "-1", "inf"])
@pytest.mark.parametrize("key", list(numbers_of(Recipe)))
def test_every_number_of_a_recipe_has_a_range(key: str, value: str, recipe_file: Callable[[str], Path]) -> None:
    tables = "[sft]\nsteps = 1\n[reward]\nsteps = 1\n[rl]\nsteps = 1\n[rl.sparse_rollouts]\nzeros = 0.5\n[eval]\n"
    file = recipe_file(tables)
    file.write_text(file.read_text().replace("held_out = 0.2", "split = [1, 1, 1]"))
    recipes.load(file)
    if (key, value) == ("rl.sparse_rollouts.cap", "inf"):  # nothing is capped
        recipes.load(file, [f"{key}={value}"])
        return
    named = re.escape(key.replace(".0.", ".").removesuffix(".1"))
    with pytest.raises(ConfigError, match=named):
        recipes.load(file, [f"{key}={value}"])
