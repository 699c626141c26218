"""Statements compiled once: a step is stored several hundred times a second, and compiling costs more than running."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa


class Prepared:
    """An insert, update or deletion with named parameters, ready for one database's driver.

    Args:
        statement: What is run.
        names: The parameters that each row brings.
        dialect: The database's own.
    """

    def __init__(self, statement: sa.Insert | sa.Update | sa.Delete, names: Sequence[str], dialect: sa.Dialect) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=list(names))
        self._sql = str(compiled)
        self._order = compiled.positiontup if compiled.positional else None

    def run(self, connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
        """Run the statement once a row, in the connection's transaction."""
        if not rows:
            return
        order = self._order
        values: list[Any] = list(rows) if order is None else [tuple(row[name] for name in order) for row in rows]
        connection.exec_driver_sql(self._sql, values if len(values) > 1 else values[0])
