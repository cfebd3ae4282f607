"""What people do with pipelines in diffusers, done to students of a UNet and of a transformer."""

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
    DiffNASSD3Transformer2DModel,
    DiffNASUNet2DConditionModel,
    DiffNASUNet2DModel,
)
from diffnas.student.saving import save_pipeline
from tests.engine import on_a_gpu
from tests.models import tiny_condition_unet, tiny_flux, tiny_sd3, tiny_stable_diffusion, tiny_unet

EDITS = {
    "mid_block.attentions.0": {"kind": "skip"},
    "down_blocks.1.attentions.0": {"kind": "transformer", "heads": 2, "width": 32},
}
EDITS_OF_LAYERS = {
    "transformer_blocks.0": {"kind": "joint", "heads": 1, "width": 32, "modulation": 2},
    "transformer_blocks.1": {"kind": "skip"},
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


def transformer_student(edits: Any = EDITS_OF_LAYERS) -> Any:
    """Stable Diffusion 3 with that student of its transformer."""
    pipeline = tiny_sd3()
    torch.manual_seed(0)
    config = pipeline.transformer.config
    transformer = DiffNASSD3Transformer2DModel.from_config(config, edits=edits).eval()
    pipeline.register_modules(transformer=transformer)
    return pipeline


def images(pipeline: Any) -> Any:
    """Of one caption, always the same."""
    pipeline.set_progress_bar_config(disable=True)
    random = torch.Generator().manual_seed(0)
    call = {"num_inference_steps": 2, "output_type": "np", "generator": random}
    return pipeline("a disc", **call).images


def nearly(made: Any, wanted: Any) -> bool:
    """Whether images differ, but by less than a hundredth of their range."""
    assert wanted.std() > 0.1
    return bool(0 < abs(made - wanted).max() < 0.01)


def are_eight_bits(model: Any) -> bool:
    """Whether all of its linear layers are."""
    layers = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    return bool(layers) and all(layer.weight.qdata.dtype == torch.int8 for layer in layers)


of_either = pytest.mark.parametrize(
    ("student", "part"), [(student, "unet"), (transformer_student, "transformer")]
)


def save_adapter(pipeline: Any, part: str, folder: Any) -> None:
    model = getattr(pipeline, part)
    model.add_adapter(ADAPTER)
    layers = get_peft_model_state_dict(model)
    for name in [name for name in layers if "lora_B" in name]:
        layers[name] = torch.randn_like(layers[name])  # as made, they change nothing
    type(pipeline).save_lora_weights(folder, **{f"{part}_lora_layers": layers})


@of_either
def test_an_adapter_trained_on_a_student_loads_into_it(student, part, tmp_path):
    save_adapter(student(), part, tmp_path)
    plain, adapted = student(), student()
    adapted.load_lora_weights(tmp_path)
    assert abs(images(adapted) - images(plain)).max() > 0


@pytest.mark.parametrize(
    ("teacher", "student", "part", "edits"),
    [
        *((tiny_stable_diffusion, student, "unet", each) for each in EDITS.items()),
        *((tiny_sd3, transformer_student, "transformer", e) for e in EDITS_OF_LAYERS.items()),
    ],
)
def test_an_adapter_of_layers_that_a_student_lacks_is_refused(
    teacher, student, part, edits, tmp_path
):
    save_adapter(teacher(), part, tmp_path)
    with pytest.raises(ValueError, match=r"of another architecture.*train it on the student"):
        student(dict([edits])).load_lora_weights(tmp_path)


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
    save_adapter(tiny_stable_diffusion(), "unet", tmp_path)
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


CALL = {"sample": (1, 4, 8, 8), "timestep": (), "encoder_hidden_states": (1, 77, 32)}
CALL_OF_LAYERS = {
    "hidden_states": (1, 4, 8, 8),
    "timestep": (1,),
    "encoder_hidden_states": (1, 5, 64),
    "pooled_projections": (1, 64),
}


@pytest.mark.parametrize(
    ("student", "part", "call"),
    [(student, "unet", CALL), (transformer_student, "transformer", CALL_OF_LAYERS)],
)
@torch.no_grad()
def test_it_can_be_compiled(student, part, call):
    model = getattr(student(), part)
    compiled = torch.compile(model, backend="eager")
    inputs = {name: torch.randn(size).abs() for name, size in call.items()}
    assert torch.equal(compiled(**inputs).sample, model(**inputs).sample)


COMPILER = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
HEADERS = Path(sysconfig.get_path("include")) / "Python.h"


COMPILES = shutil.which(COMPILER) is not None and HEADERS.exists()


@pytest.mark.skipif(not COMPILES, reason="inductor needs a C++ compiler and Python's headers")
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


@of_either
def test_parts_that_wait_their_turn_elsewhere_make_the_same_images(student, part):
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


@of_either
def test_weights_in_eight_bits_sample_nearly_the_same(student, part):
    pipeline = student()
    wanted, model = images(pipeline), getattr(pipeline, part)
    quantize_(model, Int8WeightOnlyConfig())
    assert are_eight_bits(model)
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
