"""The documentation is true: every program in it runs and prints what it claims; examples run; pages are linked."""

from __future__ import annotations

import ast
import contextlib
import doctest
import importlib
import io
import os
import pkgutil
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

import iom_core
from iom_core import lifecycle, scenarios

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NOT_RUN = {"text", "bash", "console", "mermaid", "json", "toml"}
"""What a block may be besides Python. A Python block can't opt out of running."""


@attrs.frozen
class Block:
    """A fenced block: its language, its text, the line it begins on, and the output shown right below it."""

    language: str
    text: str
    line: int
    shown: str | None = None


def blocks(page: Path) -> Iterator[Block]:
    lines = page.read_text("utf-8").splitlines()
    found: list[tuple[Block, int]] = []
    start: int | None = None
    for number, line in enumerate(lines):
        if not line.lstrip().startswith("```"):
            continue
        if start is None:
            start = number
        else:
            body = "\n".join(lines[start + 1 : number])
            found.append((Block(lines[start].strip().removeprefix("```"), body, start + 2), number))
            start = None
    assert start is None, f"{page.name}:{(start or 0) + 1}: the block is never closed"
    for index, (block, end) in enumerate(found):
        after = found[index + 1][0] if index + 1 < len(found) else None
        follows = after is not None and after.language == "text" and not any(lines[end + 1 : after.line - 2])
        yield attrs.evolve(block, shown=after.text if after is not None and follows else None)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_program_on_the_page_runs_and_prints_what_is_shown(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType(f"page_{page.stem.replace('-', '_')}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block in blocks(page):
        assert block.language in {"python", *NOT_RUN}, f"{name(page)}:{block.line - 1}: can't run {block.language!r}"
        if block.language != "python":
            continue
        printed = io.StringIO()
        # Blank lines in front put the page's own line numbers into tracebacks.
        program = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
        with contextlib.redirect_stdout(printed):
            exec(program, module.__dict__)  # noqa: S102 - our own documentation
        if block.shown is not None:
            assert printed.getvalue().rstrip().splitlines() == block.shown.splitlines(), f"{name(page)}:{block.line}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [target for target in targets if target and "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_there_is_an_example_per_scenario() -> None:
    assert len(EXAMPLES) >= len(scenarios.SCENARIOS)


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_the_example_is_short_and_prints_a_completed_timeline(example: Path) -> None:
    ran = subprocess.run([sys.executable, "-W", "error", example], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert "New / Received" in ran.stdout
    assert "Completed / Fulfilled" in ran.stdout
    assert len(example.read_text("utf-8").splitlines()) <= 40


def modules() -> list[str]:
    found = pkgutil.walk_packages(iom_core.__path__, "iom_core.")
    return ["iom_core", *(each.name for each in found if not each.ispkg or "." in each.name)]


@pytest.mark.parametrize("module", modules())
def test_docstring_examples_run(module: str) -> None:
    assert doctest.testmod(importlib.import_module(module)).failed == 0


def test_every_public_name_of_the_front_door_has_a_docstring() -> None:
    assert [each for each in iom_core.__all__ if not getattr(iom_core, each).__doc__] == []


def test_every_module_begins_with_what_it_is() -> None:
    paths = sorted((ROOT / "src").rglob("*.py"))
    bare = [name(path) for path in paths if not ast.get_docstring(ast.parse(path.read_text("utf-8")))]
    assert bare == []


# -- the drawn page -----------------------------------------------------------------------------------------------

LIFECYCLE = ROOT / "docs" / "lifecycle.md"


def lifecycle_page() -> str:
    """Draw every state table and every flow from the rows and steps that run."""
    parts = [
        "# Lifecycle and flows",
        "",
        "Drawn from the rows and steps that run, by `IOM_UPDATE=1 python -m pytest tests/project`. Don't edit it here.",
        "",
        "An arrow reads *business event / state reason*. An event that isn't drawn from a state is refused there; an",
        "event without any row in a table is always legal, and sets nothing.",
        "",
        "## State tables",
    ]
    for table in lifecycle.BUILT_IN.tables().values():
        parts += ["", f"### The {table.entity}", "", "```mermaid", table.mermaid(), "```"]
    parts += ["", "## Flows of the six scenarios", "", "A label on an arrow is the event or the branch that opens it."]
    for each in scenarios.SCENARIOS.values():
        parts += ["", f"### {each.id} {each.name}", "", f"{each.flow.description}.", ""]
        parts += ["```mermaid", each.flow.mermaid(), "```"]
    return "\n".join(parts) + "\n"


def test_the_lifecycle_page_is_drawn_from_what_runs() -> None:
    drawn = lifecycle_page()
    if os.environ.get("IOM_UPDATE"):
        LIFECYCLE.write_text(drawn, "utf-8")
    assert LIFECYCLE.read_text("utf-8") == drawn, "draw it again: IOM_UPDATE=1 python -m pytest tests/project"
