"""What every family promises: how its denoisers are called, cut into blocks and narrowed."""

import pytest
import torch

from diffnas.blocks import capture, tensors
from diffnas.families.batches import training_batch
from diffnas.families.teaching import teaching
from diffnas.measure.meta import to_meta
from diffnas.student.modeling import trunk_groups
from diffnas.trunk import make_trunk
from tests.engine import first_channels
from tests.families.kinds import CPU, KINDS, WITH_STREAMS, inputs_of, teacher


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
    shape = model.family.sample_shape(meta)
    assert model.family.prediction(meta(**inputs), shape[1:]).shape[0] == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_batch_can_be_predicted(kind):
    model = teacher(kind)
    shape = model.family.sample_shape(model.denoiser)
    condition = model.family.example_condition(model.denoiser, 3, CPU)
    batch = training_batch(model, torch.zeros(3, *shape), condition, torch.Generator())
    with torch.no_grad():
        predicted = model.family.prediction(model.denoiser(**batch.inputs), batch.size)
    assert batch.target.shape == (3, *shape)
    assert predicted.shape[1] in (shape[0], 2 * shape[0])
    assert batch.error(predicted).isfinite()


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


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_in_half_precision_it_teaches_nearly_the_same(kind):
    model = teacher(kind)
    names = model.family.block_names(model.denoiser)
    inputs, size = inputs_of(model), model.family.sample_shape(model.denoiser)[1:]
    output, calls = capture(model.denoiser, names, inputs)
    with teaching(model, "bf16"):
        rounded, found = capture(model.denoiser, names, inputs)
    one, other = (model.family.prediction(each, size) for each in (output, rounded))
    assert 0 < float((one - other).norm() / one.norm()) < 0.05
    for name, call in found.items():
        made = model.denoiser.get_submodule(name)(*call.args, **call.kwargs)
        for whole, given in zip(tensors(calls[name].output), tensors(made), strict=True):
            assert given.dtype == torch.float32
            torch.testing.assert_close(given, whole, rtol=0.1, atol=0.1 * float(whole.std()))
