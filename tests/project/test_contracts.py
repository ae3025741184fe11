"""The house rules that a program can check: imports, markers, exports, suppressions, and the commands we promise."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"
SOURCES = sorted(SRC.rglob("*.py"))
OURS = sorted(path for top in ("src", "tests", "examples") for path in (ROOT / top).rglob("*.py"))

ALLOWED = {"attr", "attrs", "cattr", "cattrs", "transitions", "returns", "typing_extensions", "six", "msgspec"}
"""What `import iom_core` may load besides the standard library: its four dependencies, theirs, and the fast codec."""


def lines(paths: list[Path]) -> Iterator[tuple[str, str]]:
    for path in paths:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            yield f"{path.relative_to(ROOT)}:{number}", line


def test_import_contracts_hold() -> None:
    checked = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "120"},
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def loaded_by(module: str) -> set[str]:
    program = (
        "import sys; before = set(sys.modules); import importlib; importlib.import_module(sys.argv[1]); "
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    ran = subprocess.run([sys.executable, "-c", program, module], capture_output=True, text=True, check=True)
    return set(ran.stdout.split()) - set(sys.stdlib_module_names)


def test_importing_the_core_pulls_its_four_dependencies_and_nothing_else() -> None:
    assert loaded_by("iom_core") <= {"iom_core", *ALLOWED}


def test_importing_the_fakes_needs_no_test_tools() -> None:
    assert loaded_by("iom_core.testing") <= {"iom_core", *ALLOWED}


def test_importing_the_adapters_package_costs_nothing() -> None:
    assert loaded_by("iom_adapters") == {"iom_adapters"}


@pytest.mark.parametrize("package", ["iom_core", "iom_adapters"])
def test_the_package_says_that_it_is_typed(package: str) -> None:
    assert (SRC / package / "py.typed").is_file()


def exporting() -> list[str]:
    names = []
    for path in SOURCES:
        tree = ast.parse(path.read_text("utf-8"))
        targets = [t for node in tree.body if isinstance(node, ast.Assign) for t in node.targets]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            relative = path.relative_to(SRC).with_suffix("")
            names.append(".".join(part for part in relative.parts if part != "__init__"))
    return names


@pytest.mark.parametrize("module", exporting())
def test_all_is_sorted_and_true(module: str) -> None:
    loaded = importlib.import_module(module)
    assert list(loaded.__all__) == sorted(set(loaded.__all__))
    assert [name for name in loaded.__all__ if not hasattr(loaded, name)] == []


@pytest.mark.parametrize("module", ["iom_core", "iom_core.testing"])
def test_a_front_door_exports_everything_it_imports(module: str) -> None:
    loaded = importlib.import_module(module)
    tree = ast.parse(Path(str(loaded.__file__)).read_text("utf-8"))
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for alias in node.names
    }
    assert imported == set(loaded.__all__)


def test_results_are_never_matched_by_pattern() -> None:
    """`case Success(x)` types ``x`` as Any and isn't seen as exhaustive: `failed` is the one way to read a Result."""
    found = [place for place, line in lines(SOURCES) if re.search(r"case\s+(Success|Failure)\(", line)]
    assert found == []


def test_every_suppression_names_its_rule_and_its_reason() -> None:
    reasoned = re.compile(r"# (noqa: [A-Z]+\d+(, ?[A-Z]+\d+)*|type: ignore\[[\w-]+(, ?[\w-]+)*\])\s+(# |- )\S")
    mark = re.compile(r"# (noqa\b|type: ignore\b)")
    here = Path(__file__)
    found = [
        place
        for place, line in lines([path for path in OURS if path != here])
        if mark.search(line) and not reasoned.search(line)
    ]
    assert found == []


def test_no_class_is_named_for_what_it_is_built_like() -> None:
    vague = re.compile(r"^\s*class \w*(Manager|Helper|Util|Utils|Impl|DTO)\b")
    assert [place for place, line in lines(SOURCES) if vague.search(line)] == []


def test_only_dot_files_and_the_six_known_names_stand_at_the_top() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    if tracked.returncode != 0:
        pytest.skip("not a checkout: what is at the top can't be told from what was built there")
    top = {path.partition("/")[0] for path in tracked.stdout.splitlines()}
    assert {each for each in top if not each.startswith(".")} <= {
        "README.md",
        "docs",
        "examples",
        "pyproject.toml",
        "src",
        "tests",
    }


DEMO = "python3 -m venv .venv && .venv/bin/python -m pip install -q -e '.[all]' && .venv/bin/iom demo"
TEST = "python3 -m venv .venv && .venv/bin/python -m pip install -q -e '.[all,test]' && .venv/bin/python -m pytest -q"


def test_the_readme_gives_both_commands() -> None:
    assert {DEMO, TEST} <= set((ROOT / "README.md").read_text("utf-8").splitlines())


def test_continuous_integration_runs_the_readmes_test_command() -> None:
    script = ROOT / ".ci" / "run"
    text = script.read_text("utf-8")
    assert TEST in text.splitlines()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text.splitlines()
    assert os.access(script, os.X_OK)


def test_the_version_is_in_the_changelog() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    version = re.search(r'^version = "(.+)"$', project, re.MULTILINE)
    assert version is not None
    assert f"## {version[1]}" in (ROOT / "docs" / "changelog.md").read_text("utf-8")
