"""Results on stdout: tables for people, JSON for programs."""

import json
from typing import Any

from rich.console import Console
from rich.table import Table


def print_table(table: Table) -> None:
    """Print it; in a pipe as wide as it needs."""
    console = Console()
    if not console.is_terminal:
        wide = Console(width=10_000)
        console = Console(width=max(wide.measure(table).maximum, 40))
    console.print(table)


def print_json(values: Any) -> None:
    """Print as JSON; what is no number (NaN, infinity) is null, as the format has neither."""
    print(json.dumps(_finite(values), indent=2, ensure_ascii=False))


def _finite(values: Any) -> Any:
    if isinstance(values, dict):
        return {str(key): _finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    if isinstance(values, float) and not (float("-inf") < values < float("inf")):
        return None
    return values
