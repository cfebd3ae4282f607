"""What was tried in the search and left: other orders of importance, a supernet fed by itself.

    python benchmarks/variants.py digits --data digits --macs 0.25 --steps 4000 --out runs/variants

`activation` and `fisher` sort inner channels and heads by what was measured of them, where DiffNAS
goes by weights: the mean square of what a channel is, times the weights that read it; and the
Fisher information of leaving it out (as `trunk.py` has it for streams). `fed`: over the second half
of its steps the supernet's blocks are given what a random architecture of the supernet makes of the
images, no longer what the teacher does. Models of pixels. Each is a whole compression, in a folder
of its own; one function of the library is replaced for it. Writes one
benchmarks/results/variants_NAME.json each.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from unittest.mock import patch

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from protocol import assignments
from recipes import compare, parser_of
from torch import Tensor
from trained import Bench, bench

from diffnas import settings as all_settings
from diffnas.architecture import Space
from diffnas.blocks import Call, freeze, recorded
from diffnas.families import Teacher
from diffnas.families.batches import random_batch
from diffnas.rng import generator
from diffnas.slots import attention, resnet
from diffnas.supernet import Supernet
from diffnas.supernet_training import BlockTraining, Lesson, random_subnet
from diffnas.trunk import Trunk

BATCH, BATCHES = 64, 16


READERS = {ResnetBlock2D: "conv2", Attention: "to_out.0"}
"""Kind of a layer -> what in it reads the channels that are sorted."""


@torch.enable_grad()
def measured(on: Bench, kind: str) -> dict[str, Tensor]:
    """Path of a layer -> importance of its inner channels (C,)."""
    model, random = on.teacher.denoiser, generator(0, "order", 0)
    readers = {
        path: f"{path}.{READERS[type(layer)]}"
        for path, layer in model.named_modules()
        if type(layer) in READERS
    }
    found: dict[str, Tensor] = {}
    first = model.get_submodule("conv_in")  # weights are frozen; from here on there is a gradient
    handle = first.register_forward_hook(lambda _, __, output: output.requires_grad_())
    for _ in range(BATCHES):
        noisy = random_batch(on.teacher, on.data, BATCH, random)
        with recorded(model, list(readers.values())) as calls:
            made = on.teacher.family.prediction(model(**noisy.inputs), noisy.size)
        given = [calls[name].args[0] for name in readers.values()]
        gradients = torch.autograd.grad(noisy.error(made, "sum"), given)
        for path, x, g in zip(readers, given, gradients, strict=True):
            places = (2, 3) if x.ndim == 4 else (1,)
            each = (g * x).sum(places).square() if kind == "fisher" else x.square().sum(places)
            found[path] = found.get(path, torch.zeros(())) + each.detach().sum(0).cpu()
    handle.remove()
    if kind == "activation":
        for path, reader in readers.items():
            weight = model.get_parameter(f"{reader}.weight").cpu()
            found[path] = found[path] * weight.square().transpose(0, 1).flatten(1).sum(1)
    return found


@contextmanager
def ordered(on: Bench, kind: str) -> Iterator[None]:
    """While active, supernets sort by what was measured."""
    scores, make, sort_heads = measured(on, kind), Supernet.__init__, attention.ordered

    def made(self: Supernet, teacher: Teacher, space: Space, trunk: Trunk | None = None) -> None:
        base = teacher.denoiser if trunk is None else trunk.denoiser
        of = {id(base.get_submodule(path)): each for path, each in scores.items()}

        def heads(layer: Attention, order: Tensor | None = None) -> Attention:
            by_head = of[id(layer)].unflatten(0, (layer.heads, -1))
            rows = torch.arange(by_head.numel()).view_as(by_head)
            best = by_head.sum(1).argsort(descending=True, stable=True)
            return sort_heads(layer, rows[best].flatten())

        with (
            patch.object(resnet, "importance", lambda layer: of[id(layer)]),
            patch.object(attention, "ordered", heads),
        ):
            make(self, teacher, space, trunk)

    with patch.object(Supernet, "__init__", made):
        yield


@contextmanager
def fed(_: Bench) -> Iterator[None]:
    """While active, blocks of a supernet are given what its other blocks make."""
    plain = BlockTraining.lesson

    def lesson(self: BlockTraining, index: int) -> Lesson:
        made = plain(self, index)
        if index < self.pace.steps // 2:
            return made
        net, random = self.supernet, generator(self.seed, "supernet", index)
        noisy = random_batch(net.teacher, self.data, self.pace.batch_size, random)  # the same one
        whole, pick = copy.deepcopy(net.base), generator(self.seed, "fed", index)
        whole.to(net.teacher.device)
        for name, block in net.blocks.items():
            block.activate(random_subnet(block.space, pick))
            vars(whole.get_submodule(name))["forward"] = block.forward
        with net.awake(net.blocks), torch.no_grad(), recorded(whole, list(made.calls)) as calls:
            whole(**noisy.inputs)
        for name, taught in made.calls.items():
            given = freeze((calls[name].args, calls[name].kwargs))
            made.calls[name] = Call(*given, taught.output)
        return made

    with patch.object(BlockTraining, "lesson", lesson):
        yield


VARIANTS: dict[str, Callable[[Bench], AbstractContextManager[None]]] = {
    "activation": lambda on: ordered(on, "activation"),
    "fisher": lambda on: ordered(on, "fisher"),
    "fed": fed,
}


def main() -> None:
    parser = parser_of(__doc__, "variants")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    args = parser.parse_args()
    on = bench(args.teacher, args.data, all_settings.load(None, tuple(assignments(args))))
    out, name = args.out, args.name
    for variant in args.variants:
        args.out, args.name = out / variant, f"{name}_{variant}"
        with VARIANTS[variant](on):
            compare({variant: []}, args)


if __name__ == "__main__":
    main()
