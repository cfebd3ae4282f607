"""What every family promises, over small pipelines of the real classes."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from diffnas import slots
from diffnas.architecture import Architecture, joined
from diffnas.blocks import capture, tensors
from diffnas.families import (
    Family,
    Teacher,
    dit,
    flux,
    flux2,
    pixart,
    sd3,
    unet2d,
    unet2d_condition,
)
from diffnas.families.batches import training_batch
from diffnas.families.conditions import MASK, MASKED
from diffnas.families.teaching import teaching
from diffnas.measure.cost import to_meta
from diffnas.rng import generator
from diffnas.settings import SpaceSettings
from diffnas.space import make_space
from diffnas.student.modeling import edit_module, trunk_groups
from diffnas.student.stock import as_model, stock_class
from diffnas.supernet import Supernet
from diffnas.trunk import make_trunk
from tests.engine import first_channels, scramble, tiny_data
from tests.models import (
    tiny_dit,
    tiny_flux,
    tiny_flux2,
    tiny_inpainting,
    tiny_pipeline,
    tiny_pixart,
    tiny_refiner,
    tiny_sd3,
    tiny_stable_diffusion,
    tiny_xl,
)

CPU = torch.device("cpu")

KINDS: dict[str, tuple[Callable[[], Any], Family]] = {
    "pixels": (tiny_pipeline, unet2d.FAMILY),
    "texts": (tiny_stable_diffusion, unet2d_condition.FAMILY),
    "texts, two encoders": (tiny_xl, unet2d_condition.FAMILY),
    "texts, of images": (tiny_refiner, unet2d_condition.FAMILY),
    "texts and images with holes": (tiny_inpainting, unet2d_condition.FAMILY),
    "classes, transformer": (tiny_dit, dit.FAMILY),
    "texts, transformer": (tiny_pixart, pixart.FAMILY),
    "texts, transformer of two streams": (tiny_sd3, sd3.FAMILY),
    "texts, distilled guidance": (tiny_flux, flux.FAMILY),
    "texts, no guidance": (lambda: tiny_flux(distilled=False), flux.FAMILY),
    "texts, shared modulation": (tiny_flux2, flux2.FAMILY),
    "texts, few steps": (lambda: tiny_flux2(distilled=True), flux2.FAMILY),
}
OF_TEXTS = [kind for kind, (_, family) in KINDS.items() if family.captions is not None]
NOT_GUIDED = ["texts, few steps"]
"""Though their family can be."""

TOLD = [
    kind
    for kind, (_, family) in KINDS.items()
    if family.nothing is not None and kind not in NOT_GUIDED
]
WITH_STREAMS = [kind for kind, (_, family) in KINDS.items() if family.streams is not None]

OWN_CALL: dict[str, Any] = {
    "pixart": {"use_resolution_binning": False},
    "flux": {"height": 16, "width": 16},
    "flux2": {"height": 16, "width": 16},
}
"""What pipelines must be told to make images of the size that their denoiser is for."""


@cache
def teacher(kind: str) -> Teacher:
    make, family = KINDS[kind]
    pipeline = make()
    denoiser = getattr(pipeline, family.component).eval().requires_grad_(False)
    scramble(denoiser)
    return Teacher(kind, pipeline, denoiser, family)


def inputs_of(model: Teacher, count: int = 2) -> dict[str, Any]:
    """A call on noise, with a condition that is not zero."""
    random = generator(0, "test", 0)
    family = model.family
    noisy = torch.randn(count, *family.sample_shape(model.denoiser), generator=random)
    condition = {
        name: torch.randn(each.shape, generator=random) if each.is_floating_point() else each + 1
        for name, each in family.example_condition(model.denoiser, count, CPU).items()
    }
    times = torch.tensor([3, 700, 40][:count])
    return family.inputs(model.denoiser, noisy, times, condition)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_supported(kind):
    model = teacher(kind)
    assert type(model.denoiser) in model.family.classes
    assert model.family.supports(model.denoiser) is None


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_are_named_in_the_order_they_run(kind):
    model, ran = teacher(kind), []
    names = model.family.block_names(model.denoiser)
    handles = [
        model.denoiser.get_submodule(name).register_forward_hook(lambda *_, n=name: ran.append(n))
        for name in names
    ]
    with torch.no_grad():
        model.denoiser(**inputs_of(model))
    for handle in handles:
        handle.remove()
    assert ran == names


@pytest.mark.parametrize("kind", KINDS)
def test_example_inputs_can_be_made_on_the_meta_device(kind):
    model = teacher(kind)
    meta = to_meta(model.denoiser)
    inputs = model.family.example_inputs(meta, 2, torch.device("meta"))
    assert all(tensor.is_meta for tensor in tensors(inputs))
    own = {name: each for name, each in inputs.items() if name not in model.family.shared}
    assert all(len(tensor) == 2 for tensor in tensors(own))
    assert model.family.prediction(meta(**inputs)).shape[0] == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_batch_can_be_predicted(kind):
    model = teacher(kind)
    shape = model.family.sample_shape(model.denoiser)
    condition = model.family.example_condition(model.denoiser, 3, CPU)
    batch = training_batch(model, torch.zeros(3, *shape), condition, torch.Generator())
    with torch.no_grad():
        predicted = model.family.prediction(model.denoiser(**batch.inputs))
    assert batch.target.shape == (3, *shape)
    assert predicted.shape[1] in (shape[0], 2 * shape[0])
    assert batch.error(predicted).isfinite()


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_the_shared_forward_of_every_option_is_the_plain_modules(kind):
    model = teacher(kind)
    space = make_space(model.denoiser, model.family, SpaceSettings(max_subnets=10**9))
    found = {joined(block.name, slot.path): slot for block in space.blocks for slot in block.slots}
    _, calls = capture(model.denoiser, list(found), inputs_of(model))
    for path, slot in found.items():
        module, call = model.denoiser.get_submodule(path), calls[path]
        shared = slots.SharedSlot(module, to_meta(module), slot)
        given = shared(*call.args, **call.kwargs)
        torch.testing.assert_close(given, call.output, msg=path)
        for option in slot.options[1:]:
            plain = edit_module(module, option.edit)
            plain.load_state_dict(shared.weights(option.name))
            shared.active = option.name
            torch.testing.assert_close(
                shared(*call.args, **call.kwargs),
                plain(*call.args, **call.kwargs),
                msg=f"{path} {option.name}",
            )


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_a_student_is_its_supernets_subnet(kind, tmp_path):
    model = teacher(kind)
    space = make_space(model.denoiser, model.family, SpaceSettings())
    net = Supernet(model, space)
    random = np.random.default_rng(0)
    chosen = Architecture(
        {
            block.name: {slot.path: random.choice(slot.options).name for slot in block.slots}
            for block in space.blocks
        }
    )
    built = net.build(chosen)
    denoiser: Any = model.denoiser
    made = as_model(denoiser.config, chosen.edits(space), built.state_dict(), stock_class(denoiser))
    made.save_pretrained(tmp_path)
    again = type(made).from_pretrained(tmp_path)
    inputs = inputs_of(model)
    expected = model.family.prediction(built(**inputs))
    torch.testing.assert_close(model.family.prediction(again(**inputs)), expected)
    assert sum(p.numel() for p in again.parameters()) == chosen_cost(space, chosen)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_a_students_student_has_the_edits_of_both(kind):
    first = teacher(kind)
    for generation in range(2):
        space = make_space(first.denoiser, first.family, SpaceSettings())
        net = Supernet(first, space)
        # The first lesser option everywhere that changes a part, and then the next.
        chosen = Architecture(
            {
                block.name: {slot.path: part_of(slot, generation) for slot in block.slots}
                for block in space.blocks
            }
        )
        built = net.build(chosen)
        denoiser: Any = first.denoiser
        edits = chosen.edits(space)
        made = as_model(denoiser.config, edits, built.state_dict(), stock_class(denoiser))
        inputs = inputs_of(first)
        given, expected = made(**inputs), built(**inputs)
        torch.testing.assert_close(
            first.family.prediction(given), first.family.prediction(expected)
        )
        first = Teacher(kind, first.pipeline, made, first.family)


def part_of(slot: Any, generation: int) -> str:
    """An option that changes heads alone, then one that changes widths alone."""
    wanted = ("heads=1", "width=")[generation]
    names = [option.name for option in slot.options if " " not in option.name]
    return next((name for name in names if name.startswith(wanted)), slot.options[0].name)


def chosen_cost(space: Any, chosen: Architecture) -> int:
    total = space.base
    for block in space.blocks:
        total = total + block.cost_of(chosen.blocks[block.name]) - block.cost
    return int(total.params)


@torch.no_grad()
@pytest.mark.parametrize("kind", WITH_STREAMS)
def test_a_trunk_with_all_groups_is_the_teacher(kind):
    model = teacher(kind)
    kept = first_channels(model, trunk_groups(model.denoiser))
    made, inputs = make_trunk(model, kept), inputs_of(model)
    assert torch.equal(made.denoiser(**inputs).sample, model.denoiser(**inputs).sample)


@torch.no_grad()
@pytest.mark.parametrize("kind", WITH_STREAMS)
def test_blocks_of_a_narrower_trunk_take_and_give_what_is_left_of_the_calls(kind):
    model = teacher(kind)
    made = make_trunk(model, first_channels(model, trunk_groups(model.denoiser) // 2))
    _, calls = capture(model.denoiser, list(made.streams), inputs_of(model))
    for name, call in made.cut(calls).items():
        given = made.denoiser.get_submodule(name)(*call.args, **call.kwargs)
        shapes = [tensor.shape for tensor in tensors(call.output)]
        assert [tensor.shape for tensor in tensors(given)] == shapes
        whole = [tensor.shape[1] for tensor in tensors(calls[name].output)]
        assert [2 * shape[1] for shape in shapes] == whole


def told(model: Teacher, count: int) -> dict[str, torch.Size]:
    """Shapes of a condition, without what is shown."""
    example = model.family.example_condition(model.denoiser, count, CPU)
    return {name: each.shape for name, each in example.items() if name not in (MASK, MASKED)}


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_in_half_precision_it_teaches_nearly_the_same(kind):
    model = teacher(kind)
    names = model.family.block_names(model.denoiser)
    output, calls = capture(model.denoiser, names, inputs_of(model))
    with teaching(model, "bf16"):
        rounded, found = capture(model.denoiser, names, inputs_of(model))
    one, other = model.family.prediction(output), model.family.prediction(rounded)
    assert 0 < float((one - other).norm() / one.norm()) < 0.05
    for name, call in found.items():
        made = model.denoiser.get_submodule(name)(*call.args, **call.kwargs)
        for whole, given in zip(tensors(calls[name].output), tensors(made), strict=True):
            assert given.dtype == torch.float32
            torch.testing.assert_close(given, whole, rtol=0.1, atol=0.1 * float(whole.std()))


@pytest.mark.parametrize("kind", TOLD)
def test_nothing_has_the_form_of_a_condition(kind):
    model = teacher(kind)
    assert {name: each.shape for name, each in model.nothing().items()} == told(model, 1)


@pytest.mark.parametrize("kind", OF_TEXTS)
def test_captions_have_the_form_of_a_condition(kind):
    model = teacher(kind)
    found = model.family.captions(model.pipeline, ["a cat", "two dogs"])
    assert {name: each.shape for name, each in found.items()} == told(model, 2)


@pytest.mark.parametrize("kind", OF_TEXTS)
def test_captions_are_encoded_without_the_prompt_that_stands_for_none(kind):
    model, batches = teacher(kind), []
    encoder = getattr(model.pipeline, model.family.encoders(model.denoiser)[0])
    watch = encoder.register_forward_pre_hook(lambda *call: batches.append(call), with_kwargs=True)
    try:
        model.family.captions(model.pipeline, ["a cat", "two dogs"])
    finally:
        watch.remove()
    assert [len(next(tensors(given))) for _, *given in batches] == [2]


# Those of images with holes are in test_inpainting.py.
@pytest.mark.parametrize("kind", [kind for kind in OF_TEXTS if "holes" not in kind])
def test_guided_samples_are_those_of_the_pipelines_own_call(kind):
    model = teacher(kind)
    shape, steps = model.family.sample_shape(model.denoiser), 3
    samples = model.sample(
        2,
        seed=5,
        sampler="own",
        steps=steps,
        batch_size=2,
        shows=lambda rows: model.family.captions(model.pipeline, ["a cat"] * len(rows)),
        nothing=model.nothing(),
        guidance=4.0,
    )
    noise = [torch.randn(shape, generator=generator(5, "sample", index)) for index in range(2)]
    model.pipeline.set_progress_bar_config(disable=True)
    told = model.family.example_condition(model.denoiser, 2, CPU)
    start, *_ = model.family.inputs(
        model.denoiser, torch.stack(noise), torch.tensor(0), told
    ).values()
    if model.family is flux2.FAMILY:  # whose pipeline packs by itself
        start = torch.stack(noise)
    given = {"latents": start, **OWN_CALL.get(model.family.name, {})}  # as the denoiser takes it
    if kind == "texts, of images":  # of which nothing is left at full strength
        model.pipeline.scheduler.set_timesteps(steps)
        started = start * model.pipeline.scheduler.init_noise_sigma
        given = {"latents": started, "image": torch.zeros(2, 3, 16, 16), "strength": 1.0}
    own = model.pipeline(
        prompt=["a cat"] * 2,
        num_inference_steps=steps,
        guidance_scale=4.0,
        output_type="np",
        **given,
    ).images
    made = samples.transpose(0, 2, 3, 1).astype(float)
    assert np.abs(made - 255 * own).max() <= 1.0


def test_a_transformers_first_layer_cannot_be_left_out_as_the_head_uses_it():
    model = teacher("classes, transformer")
    first, *others = make_space(model.denoiser, model.family, SpaceSettings()).blocks
    assert "skip" not in [option.name for option in first.slots[0].options]
    assert all("skip" in [o.name for o in block.slots[0].options] for block in others)


def test_conditions_of_classes_are_those_of_the_images():
    model, data = teacher("classes, transformer"), tiny_data()
    told = model.condition(data, np.array([3, 6]))
    assert told["class_labels"].tolist() == [3, 2]


def test_the_class_that_stands_for_none_is_the_one_after_the_last():
    assert teacher("classes, transformer").nothing()["class_labels"].tolist() == [10]
