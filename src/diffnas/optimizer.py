"""How both trainings change weights: the optimiser, the average, and the watch on divergence."""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from diffnas import checkpoint
from diffnas.errors import RunError

NEWTON_SCHULZ = 5
"""Iterations that make a gradient's singular values about equal; torch's default."""


class Optimizer:
    """AdamW, or Muon beside it; gradients clipped at norm 1, a given rate per step.

    Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) changes ``matrices`` of a network:
    weights of linear layers and of convolutions, these as matrices of one row an output channel.
    Its updates have the size of AdamW's (Liu et al. 2025, arXiv 2502.16982), so both are
    given one rate. AdamW changes the others.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        weight_decay: float,
        precision: str = "fp32",
        matrices: Sequence[nn.Parameter] = (),
    ) -> None:
        self.parameters = list(parameters)
        # The same memory, seen as matrices: torch's Muon takes no other shape.
        seen_as = {id(each): nn.Parameter(each.detach().view(len(each), -1)) for each in matrices}
        self.leaves = [seen_as.get(id(each), each) for each in self.parameters]
        others = [each for each in self.parameters if id(each) not in seen_as]
        self.parts: dict[str, torch.optim.Optimizer] = {}
        if others:
            self.parts["adamw"] = torch.optim.AdamW(
                others, lr=0.0, weight_decay=weight_decay, fused=True
            )
        if seen_as:
            self.parts["muon"] = torch.optim.Muon(
                list(seen_as.values()),
                lr=0.0,
                weight_decay=weight_decay,
                ns_steps=NEWTON_SCHULZ,
                adjust_lr_fn="match_rms_adamw",
            )
        self.precision = precision
        device = self.parameters[0].device.type
        self.scaler = torch.amp.GradScaler(device, enabled=precision == "fp16")
        # Its first use makes its state, which threads must not do at once.
        self.scaler.scale(torch.zeros((), device=self.parameters[0].device))

    def backward(self, loss: Tensor) -> None:
        """Gradients of a loss, scaled for fp16."""
        self.scaler.scale(loss).backward()

    def step(self, rate: float, where: str) -> None:
        """Update and clear gradients.

        Raises:
            RunError: a gradient is not finite; nothing was updated.
        """
        for parameter, leaf in zip(self.parameters, self.leaves, strict=True):
            if leaf is not parameter:
                grad = parameter.grad
                leaf.grad = None if grad is None else grad.reshape(leaf.shape)
        # A subnet that leaves all layers of its block out trains nothing; the scaler would refuse.
        active = [
            part
            for part in self.parts.values()
            if any(each.grad is not None for group in part.param_groups for each in group["params"])
        ]
        if not active:
            return
        for part in active:
            self.scaler.unscale_(part)
        finite = math.isfinite(float(nn.utils.clip_grad_norm_(self.leaves, 1.0)))
        if not finite and not self.scaler.is_enabled():
            raise diverged(where, self.precision)
        # The scaler knows of each optimizer alone; the norm, and so a step, is of all gradients.
        for part in active if finite else ():
            for group in part.param_groups:
                group["lr"] = rate
            self.scaler.step(part)
        self.scaler.update()
        for parameter in (*self.parameters, *self.leaves):
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Everything that changes from step to step, as named tensors."""
        return {
            **{
                f"{name}/{row}/{key}": value
                for name, part in self.parts.items()
                for row, entries in part.state_dict()["state"].items()
                for key, value in entries.items()
            },
            **{
                f"scaler/{key}": torch.tensor(float(value), dtype=torch.float64)
                for key, value in self.scaler.state_dict().items()
            },
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what :meth:`state` gave."""
        for name, part in self.parts.items():
            moments: dict[int, dict[str, Tensor]] = {}
            for place, value in checkpoint.within(tensors, f"{name}/").items():
                row, key = place.split("/")
                moments.setdefault(int(row), {})[key] = value
            part.load_state_dict({**part.state_dict(), "state": moments})
        scaler = checkpoint.within(tensors, "scaler/")
        if scaler:
            self.scaler.load_state_dict(
                {
                    key: type(old)(scaler[key].item())
                    for key, old in self.scaler.state_dict().items()
                }
            )


def matrices_of(model: nn.Module) -> list[nn.Parameter]:
    """What Muon trains: weights of linear layers and of convolutions, each once."""
    layers = [each for each in model.modules() if isinstance(each, nn.Linear | nn.Conv2d)]
    weights = (layer.get_parameter("weight") for layer in layers)
    return list({id(weight): weight for weight in weights}.values())


def muon_macs(model: nn.Module) -> int:
    """MACs of one of Muon's steps: five iterations of X + X X^T X + (X X^T)^2 X a matrix."""
    total = 0
    for weight in matrices_of(model):
        short, long = sorted((len(weight), weight.numel() // len(weight)))
        total += NEWTON_SCHULZ * (2 * short**2 * long + short**3)
    return total


class Average:
    """Exponential moving average of parameters, with a warm-up of its decay (diffusers' EMAModel).

    decay at step n: min(d, 1 - (1 + n)^(-3/4)).
    """

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self.parameters = parameters
        self.model = EMAModel(
            parameters, decay=decay, use_ema_warmup=True, power=0.75, foreach=True
        )

    def step(self) -> None:
        """Take the parameters in as they are now."""
        self.model.step(self.parameters)

    def put_in_place(self) -> None:
        """Make the parameters the average."""
        self.model.copy_to(self.parameters)

    def state(self) -> dict[str, Tensor]:
        """Everything that changes from step to step, as named tensors."""
        return {
            **{str(row): value for row, value in enumerate(self.model.shadow_params)},
            "step": torch.tensor(self.model.optimization_step),
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what :meth:`state` gave."""
        self.model.shadow_params = [
            tensors[str(row)].to(parameter.device) for row, parameter in enumerate(self.parameters)
        ]
        self.model.optimization_step = int(tensors["step"])


def diverged(where: str, precision: str) -> RunError:
    """The error of a training whose loss or gradients are no longer finite."""
    setting = "supernet.learning_rate" if where.startswith("supernet") else "retrain.learning_rate"
    also = "" if precision == "fp32" else ", or use --precision fp32"
    return RunError(f"{where}: the loss is not finite; lower {setting}{also}")


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Mixed precision around forward passes."""
    if precision == "fp32":
        return nullcontext()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(device.type, dtype=dtype)
