"""DeepCache (Ma et al. 2023, arXiv 2312.00858): the teacher, most of it asleep on most steps.

Every N-th sampling step runs the whole denoiser and keeps what its outermost layers are given; the
steps between run only those layers. No training, no fewer parameters; what falls is the average
of the MACs over a sampling's steps.
"""

from __future__ import annotations

import copy
import math
import threading
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor, nn

from diffnas.families import Teacher
from rivals import folded, macs_of


class DeepCache(nn.Module):
    """A ``UNet2DModel`` that runs whole on every ``every``-th call of one sampling.

    ``outer``: how many layers of the first down block run on all calls. A sampling is told by its
    falling timesteps; each thread may have one. Calls whose timesteps differ, or have no values
    because costs are counted, run whole.
    """

    samplings = threading.local()  # of the class: a model that holds one cannot be copied

    def __init__(self, unet: Any, every: int, outer: int) -> None:
        super().__init__()
        self.unet, self.every, self.outer = unet, every, outer
        self.config = unet.config

    def forward(
        self, sample: Tensor, timestep: Tensor, class_labels: Tensor | None = None
    ) -> UNet2DOutput:
        """As the denoiser's."""
        times = torch.as_tensor(timestep).reshape(-1)
        if len(times) > 1 or times.is_meta:
            return self.unet(sample, timestep, class_labels)
        state = self.samplings.__dict__.setdefault(str(id(self)), {})
        time = float(times)
        begins = time >= state.get("time", -math.inf)
        call = 0 if begins else state["call"] + 1
        cached = None if call % self.every == 0 else state["inner"]
        output, inner = self.run(sample, times, class_labels, cached)
        state.update(time=time, call=call, inner=inner)
        return UNet2DOutput(sample=output)

    def run(
        self, sample: Tensor, times: Tensor, labels: Tensor | None, inner: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Output, and what the outer layers were given; the latter may be given to save work."""
        unet, outer = self.unet, self.outer
        if unet.config.center_input_sample:
            sample = 2 * sample - 1.0
        emb = unet.time_embedding(unet.time_proj(times.expand(len(sample))).to(sample.dtype))
        if unet.class_embedding is not None:
            emb = emb + unet.class_embedding(labels)
        first, last = unet.down_blocks[0], unet.up_blocks[-1]
        split = len(last.resnets) - 1 - outer
        hidden = unet.conv_in(sample)
        skips = [hidden]
        if inner is None:
            for block in unet.down_blocks:
                hidden, found = block(hidden_states=hidden, temb=emb)
                skips += found
            if unet.mid_block is not None:
                hidden = unet.mid_block(hidden, emb)
            for block in unet.up_blocks[:-1]:
                count = len(block.resnets)
                hidden, skips = block(hidden, tuple(skips[-count:]), emb), skips[:-count]
            for index in range(split):
                hidden = layer(last, index, torch.cat([hidden, skips.pop()], dim=1), emb)
            inner = hidden
        else:
            for index in range(outer):
                hidden = layer(first, index, hidden, emb)
                skips.append(hidden)
        hidden = inner
        for index in range(split, len(last.resnets)):
            hidden = layer(last, index, torch.cat([hidden, skips.pop()], dim=1), emb)
        return unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden))), inner


def layer(block: Any, index: int, hidden: Tensor, emb: Tensor) -> Tensor:
    """A ResNet layer and the attention behind it, if there is one."""
    hidden = block.resnets[index](hidden, emb)
    attentions = getattr(block, "attentions", None)
    return hidden if not attentions else attentions[index](hidden)


def deep_caches(teacher: Teacher, macs: float, steps: int) -> list[tuple[DeepCache, float]]:
    """For every number of outer layers the setting that sleeps least within ``macs``.

    Each with the average of its MACs. ``steps``: sampling steps, of which the first is whole.
    Upsamplers are folded.
    """
    unet: Any = folded(copy.deepcopy(teacher.denoiser))
    teachers, found = macs_of(teacher, teacher.denoiser), []
    whole = macs_of(teacher, unet) / teachers
    for outer in range(len(unet.down_blocks[0].resnets) + 1):
        for every in range(2, steps + 1):
            model = DeepCache(unet, every, outer)
            share = math.ceil(steps / every) / steps
            average = share * whole + (1 - share) * outer_macs(teacher, model) / teachers
            if average <= macs:
                found.append((model, average))
                break
    return found


def outer_macs(teacher: Teacher, model: DeepCache) -> int:
    """MACs of a call that uses the cache."""
    device = next(model.parameters()).device
    inputs = teacher.family.example_inputs(teacher.denoiser, 1, device)
    with torch.no_grad():
        _, inner = model.run(inputs["sample"], inputs["timestep"], inputs.get("class_labels"), None)
    return macs_of(teacher, Outer(model, inner))


class Outer(nn.Module):
    """A call that uses the cache, to be counted."""

    def __init__(self, model: DeepCache, inner: Tensor) -> None:
        super().__init__()
        self.model = model
        self.inner: Tensor
        self.register_buffer("inner", inner)

    def forward(
        self, sample: Tensor, timestep: Tensor, class_labels: Tensor | None = None
    ) -> Tensor:
        """The outer layers alone."""
        return self.model.run(sample, timestep, class_labels, self.inner)[0]
