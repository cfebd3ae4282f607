"""The networks of a pipeline as functions of named tensors to one tensor."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from diffnas.families import Teacher
from diffnas.families.autoencoder import plain_shape


class Graph(nn.Module):
    """A network called with tensors in the order of ``example``'s names.

    ``result``: of the network's keyword call; ``output``: the name of what it gives. The first axis
    of all tensors is the batch.
    """

    def __init__(
        self, result: Callable[..., Tensor], network: nn.Module, output: str, **example: Tensor
    ) -> None:
        super().__init__()
        self.network, self.result, self.output, self.example = network, result, output, example

    def forward(self, *inputs: Tensor) -> Tensor:
        """What the network gives."""
        for each in inputs:  # else each has a batch size of its own where the graph is traced
            torch._check(each.shape[0] == inputs[0].shape[0])
        return self.result(**dict(zip(self.example, inputs, strict=True)))

    def random_inputs(self, batch_size: int) -> dict[str, Tensor]:
        """Normal numbers, 0 and 1 in turn where the example has whole ones; always the same."""
        random = torch.Generator().manual_seed(batch_size)
        return {
            name: torch.randn(batch_size, *each.shape[1:], generator=random)
            if each.is_floating_point()
            else torch.arange(batch_size) % 2  # a model may have no more classes than two
            for name, each in self.example.items()
        }


def graphs(pipeline: Teacher) -> dict[str, Graph]:
    """By component: the denoiser, and the decoder of latents where there is one.

    The decoder takes latents that are divided by the autoencoder's scaling factor already, or what
    else they were normalised with, as optimum's do.
    """
    family, denoiser = pipeline.family, pipeline.denoiser
    inputs: Mapping[str, Any] = family.example_inputs(denoiser, 2, torch.device("cpu"))

    def predicted(**given: Tensor) -> Tensor:
        made: Tensor = denoiser(**_put(inputs, given)).sample
        return made

    free = {name: each for name, each in inputs.items() if name not in family.shared}
    found = {family.component: Graph(predicted, denoiser, "out_sample", **dict(flat(free)))}
    if (coder := pipeline.coder) is not None:
        latents = torch.zeros(2, *plain_shape(coder, family.sample_shape(denoiser)))

        def decoded(latent_sample: Tensor) -> Tensor:
            image: Tensor = coder.decode(latent_sample).sample
            return image

        found["vae_decoder"] = Graph(decoded, coder, "sample", latent_sample=latents)
    return found


def flat(inputs: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """The tensors among the inputs by name; those inside others by their own, as optimum has it."""
    for name, value in inputs.items():
        if isinstance(value, Mapping):
            yield from flat(value)
        elif isinstance(value, Tensor):
            yield name, value


def _put(inputs: Mapping[str, Any], given: Mapping[str, Tensor]) -> dict[str, Any]:
    """The inputs with these tensors in their places."""
    return {
        name: _put(value, given) if isinstance(value, Mapping) else given.get(name, value)
        for name, value in inputs.items()
    }
