"""What is public, in one readable file: a change of the surface shows as a difference of ``api.txt``."""

from __future__ import annotations

import difflib
import enum
import importlib
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SNAPSHOT = Path(__file__).with_name("api.txt")
MODULES = ("iom_core", "iom_core.ports", "iom_core.providers", "iom_core.scenarios", "iom_core.testing")


def public(module: Any) -> list[str]:
    """Return ``__all__``, or else what the module defines itself, with its constants."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    own = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (
            getattr(value, "__module__", "") == module.__name__
            if inspect.isclass(value) or inspect.isfunction(value)
            else name.isupper()
        )
    ]
    return sorted(own)


def signature(function: Any) -> str:
    """Write parameters with their annotations; of a default only that there is one, since its text may vary."""
    parts: list[str] = []
    starred = False
    for each in inspect.signature(function).parameters.values():
        if each.kind is each.KEYWORD_ONLY and not starred:
            parts.append("*")
        starred = starred or each.kind in (each.KEYWORD_ONLY, each.VAR_POSITIONAL)
        stars = "*" if each.kind is each.VAR_POSITIONAL else "**" if each.kind is each.VAR_KEYWORD else ""
        noted = "" if each.annotation is each.empty else f": {written(each.annotation)}"
        parts.append(f"{stars}{each.name}{noted}{'' if each.default is each.empty else ' = …'}")
    answer = inspect.signature(function).return_annotation
    arrow = "" if answer in (inspect.Signature.empty, None, "None") else f" -> {written(answer)}"
    return f"({', '.join(parts)}){arrow}"


def written(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def members(kind: type) -> Iterator[str]:
    if issubclass(kind, enum.Enum):
        yield from (f"    {each.name} = {each.value!r}" for each in kind)
        return
    for base in kind.__mro__:
        if not base.__module__.startswith("iom_"):
            continue
        for name, value in sorted(vars(base).items()):
            if name.startswith("_") or (base is not kind and name in vars(kind)):
                continue
            if isinstance(value, property):
                yield f"    {name}{signature(value.fget).replace('(self)', '')}"
            elif isinstance(value, classmethod | staticmethod):
                yield f"    {type(value).__name__} {name}{signature(value.__func__)}"
            elif inspect.isfunction(value):
                yield f"    {name}{signature(value)}"


def described(name: str, value: Any) -> Iterator[str]:
    if inspect.isclass(value):
        plain = getattr(value, "_is_protocol", False) or issubclass(value, enum.Enum) or "__init__" not in vars(value)
        bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
        yield f"class {name}" + (f" [{bases}]" if bases else "") + ("" if plain else signature(value))
        yield from members(value)
    elif inspect.isfunction(value):
        yield f"def {name}{signature(value)}"
    elif isinstance(value, str):
        yield f"{name} = {value!r}"
    else:
        yield f"{name}: {type(value).__name__}"


def surface() -> str:
    written_lines: list[str] = []
    for name in MODULES:
        module = importlib.import_module(name)
        written_lines += [f"# {name}", ""]
        for each in public(module):
            written_lines += described(each, getattr(module, each))
        written_lines.append("")
    return "\n".join(written_lines)


def test_the_public_surface_is_the_recorded_one() -> None:
    now = surface()
    if os.environ.get("IOM_UPDATE"):
        SNAPSHOT.write_text(now, "utf-8")
    recorded = SNAPSHOT.read_text("utf-8")
    changed = difflib.unified_diff(recorded.splitlines(), now.splitlines(), "recorded", "now", lineterm="", n=0)
    assert now == recorded, "\n".join(
        ["the public surface changed; if that is meant: IOM_UPDATE=1 python -m pytest tests/project", *changed]
    )


def test_a_type_checker_sees_the_surface_as_users_should() -> None:
    root = SNAPSHOT.parents[2]
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "tests/typing/api.py"], cwd=root, capture_output=True, text=True, timeout=300
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
