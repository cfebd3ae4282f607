"""What people do with pipelines in diffusers, done to a student that is a transformer."""

from typing import Any

import pytest
import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torchao.quantization import Int8WeightOnlyConfig, quantize_

from diffnas.student.modeling import DiffNASSD3Transformer2DModel
from tests.models import tiny_sd3
from tests.student.calls import are_eight_bits, images, nearly

EDITS = {
    "transformer_blocks.0": {"kind": "joint", "heads": 1, "width": 32, "modulation": 2},
    "transformer_blocks.1": {"kind": "skip"},
}
ADAPTER = LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights="gaussian")


def student(edits: Any = EDITS) -> Any:
    """Stable Diffusion 3 with that student of its transformer."""
    pipeline = tiny_sd3()
    torch.manual_seed(0)
    config = pipeline.transformer.config
    transformer = DiffNASSD3Transformer2DModel.from_config(config, edits=edits).eval()
    pipeline.register_modules(transformer=transformer)
    return pipeline


def save_adapter(pipeline: Any, folder: Any) -> None:
    pipeline.transformer.add_adapter(ADAPTER)
    layers = get_peft_model_state_dict(pipeline.transformer)
    for name in [name for name in layers if "lora_B" in name]:
        layers[name] = torch.randn_like(layers[name])  # as made, they change nothing
    type(pipeline).save_lora_weights(folder, transformer_lora_layers=layers)


@torch.no_grad()
def test_it_can_be_compiled():
    transformer = student().transformer
    compiled = torch.compile(transformer, backend="eager")
    inputs = {
        "hidden_states": torch.randn(1, 4, 8, 8),
        "timestep": torch.tensor([3.0]),
        "encoder_hidden_states": torch.randn(1, 5, 64),
        "pooled_projections": torch.randn(1, 64),
    }
    assert torch.equal(compiled(**inputs).sample, transformer(**inputs).sample)


def test_an_adapter_trained_on_a_student_loads_into_it(tmp_path):
    save_adapter(student(), tmp_path)
    plain, adapted = student(), student()
    adapted.load_lora_weights(tmp_path)
    assert abs(images(adapted) - images(plain)).max() > 0


@pytest.mark.parametrize("path", EDITS)
def test_an_adapter_of_layers_that_a_student_lacks_is_refused(tmp_path, path):
    save_adapter(tiny_sd3(), tmp_path)
    with pytest.raises(ValueError, match=r"of another architecture.*train it on the student"):
        student({path: EDITS[path]}).load_lora_weights(tmp_path)


def test_parts_that_wait_their_turn_elsewhere_make_the_same_images():
    wanted, pipeline = images(student()), student()
    pipeline.enable_model_cpu_offload(device="cpu")
    assert abs(images(pipeline) - wanted).max() == 0


def test_weights_in_eight_bits_sample_nearly_the_same():
    pipeline = student()
    wanted = images(pipeline)
    quantize_(pipeline.transformer, Int8WeightOnlyConfig())
    assert are_eight_bits(pipeline.transformer)
    assert nearly(images(pipeline), wanted)
