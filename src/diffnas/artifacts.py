"""What stages leave, by what it was made from: whether it is there, whole and still current."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from diffnas.architecture import FORMAT
from diffnas.checkpoint import check_readable, load_state, save_state
from diffnas.errors import UserError

Say = Callable[[str], None]


def of_another_choice(made: Mapping[str, Any], chosen: Mapping[str, Any]) -> bool:
    """Whether a student, by its student.json, is not the one that architecture.json has chosen.

    A search that was changed, or asked for no more than its choice, leaves them so.
    """
    return "edits" in made and made["edits"] != chosen.get("edits")


def current_tensors(file: Path, made_from: str, say: Say) -> dict[str, Tensor] | None:
    """The tensors of a state file with that fingerprint, else None; ``say`` is told why.

    Raises:
        UserError: a newer DiffNAS wrote the file.
    """
    found = load_state(file)
    if found is None:
        if file.exists():
            say(f"{file}: damaged; it is made again")
        return None
    tensors, meta = found
    return tensors if _is_current(file, meta, made_from, say) else None


def save_tensors(file: Path, tensors: Mapping[str, Tensor], made_from: str, **notes: str) -> None:
    """Write what :func:`current_tensors` finds again; ``notes``: further entries of its metadata.

    Raises:
        RunError: the disk is full.
    """
    save_state(file, tensors, {"format": str(FORMAT), "fingerprint": made_from, **notes})


def current_json(file: Path, made_from: str, say: Say) -> dict[str, Any] | None:
    """The content of a JSON file with that fingerprint, else None; ``say`` is told why.

    Raises:
        UserError: a newer DiffNAS wrote the file.
    """
    if not file.exists():
        return None
    content = read_json(file)
    if content is None:
        say(f"{file}: damaged; it is made again")
        return None
    return content if _is_current(file, content, made_from, say) else None


def read_json(file: Path) -> dict[str, Any] | None:
    """A JSON object, or None if there is no whole one in the file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def check_format(file: Path, content: Any) -> None:
    """Raise UserError if a newer DiffNAS wrote the file."""
    try:
        written = int(content.get("format", FORMAT))
    except (ValueError, TypeError):
        return  # damaged, and told apart by its fingerprint
    if written > FORMAT:
        raise UserError(
            f"{file}: its format {written} is newer than this DiffNAS reads ({FORMAT}); "
            "upgrade diffnas, or give another --out"
        )


def whole_pipeline(folder: Path, saved: Iterable[str] = ()) -> bool:
    """Whether a pipeline folder is there, its models have weights, and no file is cut short.

    ``saved``: paths in it of all that was saved there, where that is known.

    Raises:
        UserError: a file may not be read.
    """
    weights = list(folder.glob("*/*.safetensors"))
    needed = ("model_index.json", *saved)
    if not weights or not all((folder / name).is_file() for name in needed):
        return False
    # What has a config.json is a model: schedulers and tokenizers have others.
    models = {file.parent for file in folder.glob("*/config.json")}
    shards = [
        file.with_name(name)
        for file in folder.glob("*/*.safetensors.index.json")
        for name in (read_json(file) or {}).get("weight_map", {}).values()
    ]
    if models - {file.parent for file in weights} or not all(map(Path.exists, shards)):
        return False
    # A machine that lost its power may have left them empty.
    if None in map(read_json, (folder / "model_index.json", *folder.glob("*/*config.json"))):
        return False
    try:
        for file in weights:
            check_readable(file)
            with safe_open(file, framework="pt"):
                pass
    except SafetensorError:
        return False
    return True


def _is_current(file: Path, content: Any, made_from: str, say: Say) -> bool:
    check_format(file, content)
    if content.get("fingerprint") == made_from:
        return True
    say(f"{file.parent.name}/{file.name}: made from other settings or data; it is made again")
    return False
