"""The order of modules that docs/architecture.md promises."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "diffnas"


def rows() -> list[list[str]]:
    """Modules and packages of the table, a list for every row."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.split("## What is where")[1].split("\n## ")[0]
    places = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return [re.findall(r"`(\w+)(?:\.py|/)`", place) for place in places]


def imported(file: Path) -> Iterator[str]:
    """Top-level modules of diffnas that a file imports."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            package, _, rest = node.module.partition(".")
            if package == "diffnas":
                yield from [rest.split(".")[0]] if rest else (name.name for name in node.names)


def files() -> Iterator[tuple[str, Path]]:
    """Every file but the entrances, with the module or package it belongs to."""
    for file in SOURCE.rglob("*.py"):
        place = file.relative_to(SOURCE).parts[0].removesuffix(".py")
        if place not in {"__init__", "__main__"}:
            yield place, file


def test_every_module_is_in_the_table_once():
    listed = [name for row in rows() for name in row]
    assert sorted(listed) == sorted({place for place, _ in files()} | {"assets"})


def test_modules_import_from_their_own_row_or_from_those_above():
    row_of = {name: index for index, row in enumerate(rows()) for name in row}
    upward = [
        f"{file.relative_to(SOURCE)} imports {name}"
        for place, file in files()
        for name in imported(file)
        if name in row_of and row_of[name] > row_of[place]
    ]
    assert not upward
