"""What people do with pipelines in diffusers, done to students."""

from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from diffnas.student.modeling import DiffNASUNet2DConditionModel
from tests.models import tiny_condition_unet, tiny_stable_diffusion

EDITS = {
    "mid_block.attentions.0": {"kind": "skip"},
    "down_blocks.1.attentions.0": {"kind": "transformer", "heads": 2, "width": 32},
}
ADAPTER = LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights="gaussian")


def student(edits: Any = EDITS) -> Any:
    """Stable Diffusion with that student of its UNet."""
    pipeline = tiny_stable_diffusion()
    torch.manual_seed(0)
    config = tiny_condition_unet().config
    unet = DiffNASUNet2DConditionModel.from_config(config, edits=edits).eval()
    pipeline.register_modules(unet=unet)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def images(pipeline: Any) -> Any:
    random = torch.Generator().manual_seed(0)
    call = {"num_inference_steps": 2, "output_type": "np", "generator": random}
    return pipeline("a disc", **call).images


def save_adapter(pipeline: Any, folder: Any) -> None:
    pipeline.unet.add_adapter(ADAPTER)
    layers = get_peft_model_state_dict(pipeline.unet)
    for name in [name for name in layers if "lora_B" in name]:
        layers[name] = torch.randn_like(layers[name])  # as made, they change nothing
    type(pipeline).save_lora_weights(folder, unet_lora_layers=layers)


def test_an_adapter_trained_on_a_student_loads_into_it(tmp_path):
    save_adapter(student(), tmp_path)
    plain, adapted = student(), student()
    adapted.load_lora_weights(tmp_path)
    assert abs(images(adapted) - images(plain)).max() > 0


@pytest.mark.parametrize("path", EDITS)
def test_an_adapter_of_layers_that_a_student_lacks_is_refused(tmp_path, path):
    save_adapter(tiny_stable_diffusion(), tmp_path)
    with pytest.raises(ValueError, match=r"of another architecture.*train it on the student"):
        student({path: EDITS[path]}).load_lora_weights(tmp_path)


def test_an_adapter_of_layers_that_a_student_kept_loads(tmp_path):
    save_adapter(tiny_stable_diffusion(), tmp_path)
    narrow = {"kind": "resnet", "width": 8, "groups": 2, "kernel": 3}
    student({"mid_block.resnets.0": narrow}).load_lora_weights(tmp_path)


def test_another_scheduler_can_take_its_place():
    pipeline = student()
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    assert images(pipeline).shape == (1, 16, 16, 3)


@torch.no_grad()
def test_it_can_be_compiled():
    unet = student().unet
    compiled = torch.compile(unet, backend="eager")
    inputs = (torch.randn(1, 4, 8, 8), torch.tensor(3), torch.randn(1, 77, 32))
    assert torch.equal(compiled(*inputs).sample, unet(*inputs).sample)
