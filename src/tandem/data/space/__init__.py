"""A space: many small files as one folder of shards with an index, read by number, batch, path or prefix.

>>> from tandem.data.space import Space  # doctest: +SKIP
>>> with Space.open("train.space") as space:  # doctest: +SKIP
...     image = space.read(space.number("cats/1.png"))
"""

from tandem.data.space.space import Space

__all__ = ["Space"]
