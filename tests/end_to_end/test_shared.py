"""A student handed on: what the guide's lines put on the Hub, and what others get from there."""

import re
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines import pipeline_utils
from huggingface_hub import HfApi, ModelCard

from diffnas.student.modeling import MODULE_NAME, DiffNASUNet2DModel
from diffnas.student.saving import load

GUIDE = Path(__file__).parents[2] / "docs" / "guide.md"
REPOSITORY, COMMIT = "me/small-cats", "0" * 40
STUDENT = "runs/my-model/students/macs-0.5/pipeline"
"""As the guide calls it."""


def lines_of_the_guide() -> str:
    """Those that upload a student."""
    (found,) = re.findall(
        r"```python\n(from huggingface_hub import HfApi\n.*?)```", GUIDE.read_text(), re.DOTALL
    )
    return found


@pytest.fixture
def uploaded(student, monkeypatch):
    """What the guide's lines send to the Hub: contents by path."""
    made, sent = [], {}

    def create(self, repo_id, **_):
        made.append(repo_id)

    def upload(self, *, repo_id, folder_path):
        assert made == [repo_id]
        files = [file for file in Path(folder_path).rglob("*") if file.is_file()]
        sent.update({file.relative_to(folder_path).as_posix(): file.read_bytes() for file in files})

    monkeypatch.setattr(HfApi, "create_repo", create)
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    lines = lines_of_the_guide()
    assert (STUDENT in lines, REPOSITORY in lines) == (True, True)
    exec(lines.replace(STUDENT, str(student)), {})
    return sent


def test_a_student_is_uploaded_with_its_card_and_its_class(uploaded):
    assert set(uploaded) == {
        "README.md",
        "model_index.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        f"unet/{MODULE_NAME}.py",
    }


def test_no_path_of_this_machine_is_uploaded(uploaded, finished, teacher):
    for path, content in uploaded.items():
        for where in (finished, teacher, Path.home(), Path.cwd()):
            assert str(where).encode() not in content, path


def test_its_card_is_one_for_the_hub(uploaded):
    card = ModelCard(uploaded["README.md"].decode())
    assert card.data.library_name == "diffusers"
    assert "diffnas" in card.data.tags


def test_others_get_it_from_there(uploaded, student, tmp_path, monkeypatch):
    def fetch(_, *names, allow_patterns=None, ignore_patterns=(), **__):
        """Of the Hub: one file, or those that patterns want; the folder or file they are in."""
        for path, content in uploaded.items():
            wanted = any(fnmatch(path, each) for each in names or allow_patterns)
            if wanted and not any(fnmatch(path, each) for each in ignore_patterns):
                (tmp_path / "got" / path).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / "got" / path).write_bytes(content)
        return str(tmp_path.joinpath("got", *names))

    siblings = [SimpleNamespace(rfilename=path) for path in uploaded]
    told = SimpleNamespace(siblings=siblings, sha=COMMIT)
    for name, value in {
        "model_info": lambda *_, **__: told,
        "hf_hub_download": fetch,
        "snapshot_download": fetch,
    }.items():
        monkeypatch.setattr(pipeline_utils, name, value)
    cache = "diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE"
    monkeypatch.setattr(cache, str(tmp_path / "cache"))
    got = DiffusionPipeline.from_pretrained(REPOSITORY, revision=COMMIT, trust_remote_code=True)
    assert type(got.unet).__name__ == "DiffNASUNet2DModel"
    assert type(got.unet) is not DiffNASUNet2DModel  # but that of the uploaded file
    weights = load(student).unet.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in got.unet.state_dict().items())
