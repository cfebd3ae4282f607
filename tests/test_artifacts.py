"""Whether what a stage left is there and whole."""

import json
from pathlib import Path

import pytest

from diffnas.artifacts import whole_pipeline
from diffnas.errors import UserError
from tests.models import tiny_latent_pipeline


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_latent_pipeline().save_pretrained(tmp_path)
    return tmp_path


def test_a_saved_pipeline_is_whole(folder: Path) -> None:
    assert whole_pipeline(folder)


@pytest.mark.parametrize("component", ["unet", "vqvae"])
def test_one_without_the_weights_of_a_model_is_not(folder: Path, component: str) -> None:
    for file in (folder / component).glob("*.safetensors"):
        file.unlink()
    assert not whole_pipeline(folder)


def test_nor_is_one_that_lacks_a_shard(folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    index = file.with_name(f"{file.name}.index.json")
    index.write_text(json.dumps({"weight_map": {"a": file.name}}))
    assert whole_pipeline(folder)
    index.write_text(json.dumps({"weight_map": {"a": file.name, "b": "other.safetensors"}}))
    assert not whole_pipeline(folder)


@pytest.mark.parametrize(
    "name", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"]
)
def test_nor_is_one_with_an_empty_config(folder: Path, name: str) -> None:
    assert (folder / name).is_file()
    (folder / name).write_bytes(b"")
    assert not whole_pipeline(folder)


def test_one_that_may_not_be_read_is_not_taken_for_damaged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UserError, match="not readable; check its permissions"):
        whole_pipeline(folder)
