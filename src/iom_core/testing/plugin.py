"""The pytest plug-in: lets assertions inside the conformance kit explain themselves, and nothing more."""

from __future__ import annotations


def pytest_configure() -> None:
    """Have pytest rewrite the kit's assertions before anything imports it."""
    import pytest

    pytest.register_assert_rewrite("iom_core.testing.conformance")
