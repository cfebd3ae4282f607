"""Where a pipeline's files come from: a folder, or a repository of the Hugging Face Hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from diffnas.errors import UserError
from diffnas.http_error import HTTPError
from diffnas.names import looks_like_path
from diffnas.student.saving import read_json

BUILT_IN = {"digits": Path(__file__).parents[1] / "assets" / "digits"}
"""Pipelines that come with DiffNAS, by their name."""

STUDENTS_IN = {"a student's": "", "a run's": "students/*/", "the students'": "*/"}
"""Whose folder may be taken for a pipeline's -> where students are in it."""


@dataclass(frozen=True)
class Origin:
    """A pipeline by name; ``folder`` is None for one on the Hub."""

    model: str
    folder: Path | None
    revision: str | None = None


def find(model: str, revision: str | None = None) -> Origin:
    """What a name stands for: a built-in pipeline, a folder, else a Hub id. Nothing is fetched.

    Raises:
        UserError: it is none of them; or a revision is asked for of what is not on the Hub.
    """
    folder = BUILT_IN.get(model) or Path(model).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise UserError(
                f"--revision {revision}: model {model} is no repository of the Hub, which alone "
                "has revisions; leave it out"
            )
        return Origin(model, folder)
    if folder.exists():
        raise UserError(f"model {model}: a file; give the pipeline folder with model_index.json")
    if looks_like_path(model) or "/" not in model:  # the Hub has no pipeline without its owner
        raise UserError(
            f"model {model}: no such folder; give a pipeline folder, a Hub id (owner/name) or "
            "digits"
        )
    return Origin(model, None, revision)


def get_file(origin: Origin, name: str) -> Path | None:
    """One file of the pipeline, from the Hub if need be; None if the pipeline has no such file.

    Raises:
        UserError: there is no such repository, or the Hub is out of reach.
    """
    if origin.folder is not None:
        file = origin.folder / name
        return file if file.is_file() else None
    try:
        return Path(hf_hub_download(origin.model, name, revision=origin.revision))
    except EntryNotFoundError as error:
        if isinstance(error, LocalEntryNotFoundError):
            raise UserError(_refusal(origin, error)) from None
        return None
    except (OSError, HTTPError, HFValidationError) as error:
        raise UserError(_refusal(origin, error)) from None


def get_json(origin: Origin, name: str) -> dict[str, Any] | None:
    """The values of a JSON file of the pipeline; None if the pipeline has no such file.

    Raises:
        UserError: as :func:`get_file`, or the file holds no JSON object.
    """
    file = get_file(origin, name)
    return None if file is None else read_json(file)


def get_folder(origin: Origin, variant: str | None, trust_remote_code: bool) -> Path:
    """A local folder with the whole pipeline, downloaded if need be; its weights are safetensors.

    Raises:
        UserError: the download fails, or the repository has no safetensors weights.
    """
    if origin.folder is not None:
        return origin.folder
    try:
        return Path(
            DiffusionPipeline.download(
                origin.model,
                revision=origin.revision,
                variant=variant,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
            )
        )
    except (OSError, HTTPError, ValueError) as error:
        if "safetensors" in str(error):
            others = ".bin" in str(error)  # of the files that there are it is told
            raise UserError(no_safetensors(origin.model, others=others)) from None
        raise UserError(_refusal(origin, error)) from None


def part_of_a_run(origin: Origin) -> str | None:
    """Say of the folder of a run or of a student which pipelines lie in it; None of others."""
    if (folder := origin.folder) is None:
        return None
    for whose, students in STUDENTS_IN.items():
        if any(folder.glob(f"{students}architecture.json")):
            made = sorted(folder.glob(f"{students}pipeline"))
            names = [str(Path(origin.model) / each.relative_to(folder)) for each in made]
            remedy = f"give {' or '.join(names)}" if names else "none is in it yet: finish the run"
            return f"{whose} folder, not a pipeline's; {remedy}"
    return None


def no_safetensors(model: str, *, others: bool) -> str:
    """Say that weights other than safetensors are not read, or not there, and what to do."""
    if not others:
        return f"model {model}: its denoiser has no weights; copy or download the whole pipeline"
    return (
        f"model {model}: no safetensors weights; others (.bin) can run code when read and are "
        "refused; if you trust them, load with diffusers and save_pretrained("
        "safe_serialization=True)"
    )


def _refusal(origin: Origin, error: Exception) -> str:
    what = f"model {origin.model}"
    if isinstance(error, GatedRepoError):
        return f"{what}: access on the Hub is restricted; accept its terms and run `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return f"{what}: has no revision '{origin.revision}'; give a branch, tag or commit"
    if isinstance(error, RepositoryNotFoundError):
        return f"{what}: no such folder, nor a repository on the Hub; check the name"
    if isinstance(error, HFValidationError):
        return f"{what}: no such folder, and no valid Hub id; give a pipeline folder or digits"
    return (
        f"{what}: no such folder, and the Hub cannot be reached or lacks a file; "
        "check the name and the connection, or give a pipeline folder"
    )
