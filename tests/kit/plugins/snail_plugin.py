"""What a third party's distribution brings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOT_CALLABLE = 42


def connect(settings: Mapping[str, Any]) -> str:
    return f"snail at {settings['host']}"
