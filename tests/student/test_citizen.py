"""What people do with pipelines in diffusers, done to students."""

import os
import shutil
import sys
import sysconfig
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from diffusers import (
    DiffusionPipeline,
    EulerDiscreteScheduler,
    PipelineQuantizationConfig,
    TorchAoConfig,
)
from diffusers.utils import convert_unet_state_dict_to_peft
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torchao.quantization import Int8WeightOnlyConfig, quantize_

from diffnas.student.modeling import (
    MODULE_NAME,
    DiffNASFluxTransformer2DModel,
    DiffNASUNet2DConditionModel,
    DiffNASUNet2DModel,
)
from diffnas.student.saving import save_pipeline
from tests.engine import on_a_gpu
from tests.models import tiny_condition_unet, tiny_flux, tiny_stable_diffusion, tiny_unet
from tests.student.calls import are_eight_bits, images, nearly

EDITS = {
    "mid_block.attentions.0": {"kind": "skip"},
    "down_blocks.1.attentions.0": {"kind": "transformer", "heads": 2, "width": 32},
}
NARROW = {"kind": "resnet", "width": 8, "groups": 2, "kernel": 3}
ADAPTER = LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights="gaussian")


def student(edits: Any = EDITS) -> Any:
    """Stable Diffusion with that student of its UNet."""
    pipeline = tiny_stable_diffusion()
    torch.manual_seed(0)
    config = tiny_condition_unet().config
    unet = DiffNASUNet2DConditionModel.from_config(config, edits=edits).eval()
    pipeline.register_modules(unet=unet)
    return pipeline


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


def in_form(form: str) -> dict[str, torch.Tensor]:
    """An adapter of every query of the teacher's UNet, in a form that diffusers takes."""
    layers = tiny_condition_unet().named_modules()
    queries = {path: layer.weight for path, layer in layers if path.endswith("to_q")}
    found = {}
    for path, weight in queries.items():
        rows, columns = weight.shape
        down, up = torch.zeros(2, columns), torch.zeros(rows, 2)
        if form == "kohya":
            name = f"lora_unet_{path.replace('.', '_')}"
            found |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
            found[f"{name}.alpha"] = torch.tensor(2.0)
        elif form == "processors":
            name = f"unet.{path.removesuffix('to_q')}processor.to_q_lora"
            found |= {f"{name}.down.weight": down, f"{name}.up.weight": up}
        else:
            first, second = torch.zeros(2, 2), torch.zeros(rows // 2, columns // 2)
            found |= {f"unet.{path}.lokr_w1": first, f"unet.{path}.lokr_w2": second}
    return found


@pytest.mark.parametrize("form", ["kohya", "processors", "kronecker"])
def test_it_is_refused_in_every_form(form):
    lacking, kept = {"mid_block.attentions.0": {"kind": "skip"}}, {"mid_block.resnets.0": NARROW}
    for edits in (lacking, kept):
        pipeline, adapter = student(edits), in_form(form)
        load = pipeline.load_lora_weights
        if form == "kronecker":  # which Stable Diffusion's pipelines do not take themselves
            load = partial(pipeline.unet.load_lora_adapter, prefix="unet")
        if edits is lacking:
            with pytest.raises(ValueError, match="of another architecture"):
                load(adapter)
        else:
            load(adapter)


def test_it_is_refused_without_a_prefix():
    adapter = {
        name.removeprefix("unet."): value
        for name, value in convert_unet_state_dict_to_peft(in_form("processors")).items()
    }
    with pytest.raises(ValueError, match="of another architecture"):
        student().unet.load_lora_adapter(adapter, prefix=None)


def test_an_adapter_of_layers_that_a_student_kept_loads(tmp_path):
    save_adapter(tiny_stable_diffusion(), tmp_path)
    student({"mid_block.resnets.0": NARROW}).load_lora_weights(tmp_path)


def test_an_adapter_of_what_a_product_stands_for_is_refused():
    less = {"transformer_blocks.0": {"kind": "joint", "modulation": 2}}
    whole = tiny_flux().transformer
    made = DiffNASFluxTransformer2DModel.from_config(whole.config, edits=less)
    rows, columns = whole.transformer_blocks[0].norm1.linear.weight.shape
    path = "transformer.transformer_blocks.0.norm1.linear"
    adapter = {
        f"{path}.lora_A.weight": torch.zeros(2, columns),
        f"{path}.lora_B.weight": torch.zeros(rows, 2),
    }
    with pytest.raises(ValueError, match="1 of 1 layers are not in this student"):
        made.load_lora_adapter(adapter)


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


COMPILER = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
HEADERS = Path(sysconfig.get_path("include")) / "Python.h"


@pytest.mark.skipif(
    shutil.which(COMPILER) is None or not HEADERS.exists(),
    reason="no C++ compiler, or no headers of Python: inductor has nothing to compile with",
)
@torch.no_grad()
def test_inductor_compiles_it_as_one_graph():
    # As few layers as there can be: nearly all of the time is the compiler's.
    level = {"block_out_channels": (8,), "norm_num_groups": 2, "add_attention": False}
    kinds = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    others = ("mid_block.resnets.0", "mid_block.resnets.1", "up_blocks.0.resnets.0")
    edits = {
        "down_blocks.0.resnets.0": {"kind": "resnet", "width": 4, "groups": 1, "kernel": 3},
        **{path: {"kind": "skip"} for path in (*others, "up_blocks.0.resnets.1")},
    }
    unet = DiffNASUNet2DModel.from_config(tiny_unet(**level, **kinds).config, edits=edits).eval()
    compiled = torch.compile(unet, fullgraph=True, options={"compile_threads": 1})
    inputs = (torch.randn(1, 1, 8, 8), torch.tensor(3))
    torch.testing.assert_close(compiled(*inputs).sample, unet(*inputs).sample)


def test_parts_that_wait_their_turn_elsewhere_make_the_same_images():
    wanted, pipeline = images(student()), student()
    pipeline.enable_model_cpu_offload(device="cpu")
    assert abs(images(pipeline) - wanted).max() == 0


def test_layers_that_come_only_when_needed_make_the_same_images():
    wanted, pipeline = images(student()), student()
    cpu_offload(pipeline.unet, torch.device("cpu"), offload_buffers=True)
    assert abs(images(pipeline) - wanted).max() == 0
    assert all(weight.is_meta for weight in pipeline.unet.parameters())


@on_a_gpu
@pytest.mark.parametrize("way", ["enable_model_cpu_offload", "enable_sequential_cpu_offload"])
def test_what_waits_on_the_cpu_makes_the_images_of_a_gpu(way):
    wanted, pipeline = images(student().to("cuda")), student()
    getattr(pipeline, way)()
    assert abs(images(pipeline) - wanted).max() < 1e-4
    assert all(weight.device.type != "cuda" for weight in pipeline.unet.parameters())


def test_weights_in_eight_bits_sample_nearly_the_same():
    pipeline = student()
    wanted = images(pipeline)
    quantize_(pipeline.unet, Int8WeightOnlyConfig())
    assert are_eight_bits(pipeline.unet)
    assert nearly(images(pipeline), wanted)


def test_a_folder_loads_in_eight_bits_and_is_saved_so_with_its_class(tmp_path, monkeypatch):
    cache = "diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE"
    monkeypatch.setattr(cache, str(tmp_path / "cache"))
    pipeline = student()
    save_pipeline(pipeline, tmp_path / "whole")
    how = PipelineQuantizationConfig(quant_mapping={"unet": TorchAoConfig(Int8WeightOnlyConfig())})
    given = {"trust_remote_code": True, "dtype": torch.float32}
    loaded = DiffusionPipeline.from_pretrained(tmp_path / "whole", quantization_config=how, **given)
    assert are_eight_bits(loaded.unet)
    assert nearly(images(loaded), images(pipeline))
    loaded.save_pretrained(tmp_path / "small")
    assert (tmp_path / "small" / "unet" / f"{MODULE_NAME}.py").is_file()
    again = DiffusionPipeline.from_pretrained(tmp_path / "small", **given)
    assert are_eight_bits(again.unet)
    assert abs(images(again) - images(loaded)).max() < 1e-5
