"""Dynamics 365 Inventory Visibility: what is on hand, what may be promised, and soft reservations that hold it."""

from __future__ import annotations

from iom_adapters.inventory_visibility.adapter import Change as Change
from iom_adapters.inventory_visibility.adapter import InventoryVisibility as InventoryVisibility
from iom_adapters.inventory_visibility.adapter import InventoryVisibilityConfig as InventoryVisibilityConfig
from iom_adapters.inventory_visibility.adapter import Plan as Plan
from iom_adapters.inventory_visibility.adapter import Promise as Promise
from iom_adapters.inventory_visibility.adapter import connect as connect
from iom_adapters.inventory_visibility.book import Book as Book
from iom_adapters.inventory_visibility.book import FileBook as FileBook
from iom_adapters.inventory_visibility.book import MemoryBook as MemoryBook
from iom_adapters.inventory_visibility.wire import Allocation as Allocation
from iom_adapters.inventory_visibility.wire import Place as Place
from iom_adapters.inventory_visibility.wire import Variant as Variant

__all__ = [
    "Allocation",
    "Book",
    "Change",
    "FileBook",
    "InventoryVisibility",
    "InventoryVisibilityConfig",
    "MemoryBook",
    "Place",
    "Plan",
    "Promise",
    "Variant",
    "connect",
]
