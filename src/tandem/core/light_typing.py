"""What modules need of `typing` that are imported where every millisecond counts.

Importing `typing` brings regular expressions along and takes longer than to open a space of a million samples. Type
checkers see `typing` itself; at run time there is only what is really run.
"""

from collections import namedtuple

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
    from typing import cast as cast
else:

    def cast(_, value):  # noqa: ANN001, ANN201  # as typing has it
        """The value, which is of that type."""
        return value

    class _Fields(type):
        """Makes a named tuple of a class's annotations, with its methods."""

        def __new__(cls, name, bases, body):  # noqa: ANN001, ANN204  # as type has it
            if not bases:
                return super().__new__(cls, name, bases, body)
            made = namedtuple(name, body["__annotations__"], module=body["__module__"])
            for key in body.keys() - {"__annotations__", "__module__", "__qualname__"}:
                setattr(made, key, body[key])
            return made

    class NamedTuple(metaclass=_Fields):
        """A tuple whose fields are annotated, as `typing.NamedTuple`, without defaults."""
