"""Which tables a transaction writes to, seen from outside the functions that write."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.sql.dml import UpdateBase

from atoll.store.engine import Tx


def tables_written(tx: Tx) -> set[str]:
    """Names of the tables that `tx` inserts into, updates or deletes from; grows from here on."""
    names: set[str] = set()

    def note(_connection: Connection, statement: object, *_rest: Any) -> None:
        if isinstance(statement, UpdateBase):
            names.add(str(getattr(statement.table, "name", statement.table)))

    event.listen(tx.sync_connection, "before_execute", note)  # it ends with the transaction
    return names
