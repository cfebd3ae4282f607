"""That the guide's examples run, its messages are printed, and no setting is missing."""

import ast
import re
from pathlib import Path

from diffnas.settings import Settings

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "guide.md").read_text("utf-8")

SMALL = """{
    "max_steps": 2,
    "supernet": {"batch_size": 4},
    "score": {"images": 8, "batch_size": 4, "candidates": 3, "output_images": 4},
    "retrain": {"batch_size": 4},
    "space": {"max_subnets": 8},
}"""


def test_piece_by_piece_runs_as_it_stands(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    example = GUIDE.split("Piece by piece")[1].split("```python\n")[1].split("```")[0]
    assert '{"max_steps": 200}' in example
    exec(example.replace('{"max_steps": 200}', SMALL), {})
    assert (tmp_path / "small" / "model_index.json").exists()


def words(text: str) -> set[str]:
    """Its words; numbers, and what is too short to tell, are left out."""
    return set(re.findall("[a-z]{3,}", text))


def said() -> list[set[str]]:
    """Words of every string in the source."""
    files = [ast.parse(file.read_text("utf-8")) for file in (ROOT / "src").rglob("*.py")]
    nodes = [node for file in files for node in ast.walk(file)]
    return [
        words(ast.unparse(node)) for node in nodes if isinstance(node, ast.JoinedStr | ast.Constant)
    ]


def test_messages_in_troubleshooting_are_printed_somewhere() -> None:
    table = GUIDE.split("## Troubleshooting")[1]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    messages = [message for cell in cells for message in re.findall("`([^`]+)`", cell)]
    assert messages
    known = said()
    # One word may be what a message is about, such as the name of a component.
    lost = [text for text in messages if min(len(words(text) - each) for each in known) > 1]
    assert lost == []


def test_every_setting_has_a_row() -> None:
    rows = set(re.findall(r"^\| `([a-z_.]+)`", GUIDE, flags=re.MULTILINE))
    named: set[str] = set()
    for name, field in Settings.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        named |= {name} if inner is None else {f"{name}.{part}" for part in inner}
    assert named - rows == set()
