"""The durable store: orders, events, inbox, outbox and error lists in one SQL database.

    store = SqlStore.open("sqlite:///orders.db")
    with store.begin() as unit:
        ...

Needs ``iom[store]``.
"""

from iom_adapters.store.sql import Pending, SqlStore

__all__ = ["Pending", "SqlStore"]
