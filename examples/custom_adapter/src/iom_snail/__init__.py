"""Ships orders with Snail Logistics."""

from __future__ import annotations

from iom_snail.adapter import Snail as Snail
from iom_snail.adapter import connect as connect
