"""Named tuples without `typing` are those of `typing`; and what opens a space imports little."""

import pickle
import subprocess
import sys
from typing import NamedTuple as Typed

from tandem.core.light_typing import NamedTuple as Light
from tandem.core.light_typing import cast
from tandem.data.space.layout import Section, ShardEntry


class A(Typed):
    first: int
    second: str

    def both(self) -> str:
        """Of a method."""
        return f"{self.first}{self.second}"

    @property
    def size(self) -> int:
        return len(self)

    @classmethod
    def made(cls) -> "A":
        return cls(1, "2")


class B(Light):
    first: int
    second: str

    def both(self) -> str:
        """Of a method."""
        return f"{self.first}{self.second}"

    @property
    def size(self) -> int:
        return len(self)

    @classmethod
    def made(cls) -> "B":
        return cls(1, "2")


def test_a_light_named_tuple_is_what_typings_is() -> None:
    typed, light = A.made(), B.made()
    assert isinstance(light, tuple)
    assert light == typed == (1, "2")
    assert (light.both(), light.size, light._asdict()) == (typed.both(), typed.size, typed._asdict())
    assert light._replace(second="x") == typed._replace(second="x")
    assert B._fields == A._fields
    assert repr(light).replace("B(", "A(") == repr(typed)
    assert (B.__module__, B.__qualname__) == (A.__module__, "B")
    assert B.both.__doc__ == A.both.__doc__


def test_they_can_be_pickled() -> None:
    for one in (B(1, "2"), Section(3, 4), ShardEntry(1, 2, 3, 4, 5)):
        again = pickle.loads(pickle.dumps(one))
        assert (again, type(again)) == (one, type(one))
    assert cast("int", "is left as it is") == "is left as it is"


def test_what_opens_a_space_and_reads_from_it_imports_little() -> None:
    heavy = {"typing", "re", "enum", "dataclasses", "logging", "pathlib", "numpy", "json", "inspect", "fsspec"}
    code = (
        "import sys; before = set(sys.modules); from tandem.data.space import Space; "
        f"print(sorted({heavy} & (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
