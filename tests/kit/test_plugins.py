"""Adapters of others: found by their entry points, and whole as the example package is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from iom_core import registry
from iom_core.errors import Misconfigured

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "custom_adapter"


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "plugins"))


@pytest.mark.usefixtures("_installed")
class TestInstalledPlugins:
    def test_a_plugin_is_found_by_its_name(self) -> None:
        assert {"test-snail", "test-broken"} <= set(registry.available())
        assert registry.load("test-snail")({"host": "garden"}) == "snail at garden"

    def test_what_was_given_explicitly_wins(self) -> None:
        assert registry.load("test-snail", {"test-snail": lambda settings: "mine"})({}) == "mine"

    def test_a_broken_plugin_is_named_and_harms_no_other(self) -> None:
        with pytest.raises(Misconfigured, match=r"broken-plugin.*its own dependency is missing"):
            registry.load("test-broken")
        assert callable(registry.load("test-snail"))

    def test_an_entry_point_must_be_callable(self) -> None:
        with pytest.raises(Misconfigured, match="not callable"):
            registry.load("test-constant")

    def test_an_unknown_name_lists_the_known_ones(self) -> None:
        with pytest.raises(Misconfigured, match="test-snail"):
            registry.load("nobody")


def test_the_example_package_passes_its_own_tests() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-c", "pyproject.toml"],
        cwd=EXAMPLE,
        env={**os.environ, "PYTHONPATH": str(EXAMPLE / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " passed" in ran.stdout


def test_the_example_package_announces_its_adapter() -> None:
    import tomllib

    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["entry-points"][registry.GROUP] == {"snail": "iom_snail:connect"}
