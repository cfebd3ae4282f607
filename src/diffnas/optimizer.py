"""How both trainings change weights: the optimiser, the average, and the watch on divergence."""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from diffnas import checkpoint
from diffnas.errors import RunError


class Optimizer:
    """AdamW with gradient clipping at norm 1, a given rate per step, and a watch on divergence."""

    def __init__(
        self, parameters: list[nn.Parameter], weight_decay: float, precision: str = "fp32"
    ) -> None:
        self.parameters = parameters
        self.adamw = torch.optim.AdamW(parameters, lr=0.0, weight_decay=weight_decay, fused=True)
        device = parameters[0].device.type
        self.scaler = torch.amp.GradScaler(device, enabled=precision == "fp16")
        # Its first use makes its state, which threads must not do at once.
        self.scaler.scale(torch.zeros((), device=parameters[0].device))

    def backward(self, loss: Tensor) -> None:
        """Gradients of a loss, scaled for fp16."""
        self.scaler.scale(loss).backward()

    def step(self, rate: float, where: str) -> None:
        """Update and clear gradients.

        Raises:
            RunError: a gradient is not finite; nothing was updated.
        """
        # A subnet that leaves all layers of its block out trains nothing; the scaler would refuse.
        if all(parameter.grad is None for parameter in self.parameters):
            return
        self.scaler.unscale_(self.adamw)
        norm = float(nn.utils.clip_grad_norm_(self.parameters, 1.0))
        if not math.isfinite(norm) and not self.scaler.is_enabled():
            raise diverged(where)
        for group in self.adamw.param_groups:
            group["lr"] = rate
        self.scaler.step(self.adamw)
        self.scaler.update()
        self.adamw.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Everything that changes from step to step, as named tensors."""
        moments: dict[int, dict[str, Tensor]] = self.adamw.state_dict()["state"]
        return {
            **{
                f"{row}/{key}": value
                for row, entries in moments.items()
                for key, value in entries.items()
            },
            **{
                f"scaler/{key}": torch.tensor(float(value), dtype=torch.float64)
                for key, value in self.scaler.state_dict().items()
            },
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what :meth:`state` gave."""
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            row, key = name.split("/")
            if row != "scaler":
                moments.setdefault(int(row), {})[key] = value
        self.adamw.load_state_dict({**self.adamw.state_dict(), "state": moments})
        scaler = checkpoint.within(tensors, "scaler/")
        if scaler:
            self.scaler.load_state_dict(
                {
                    key: type(old)(scaler[key].item())
                    for key, old in self.scaler.state_dict().items()
                }
            )


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


def diverged(where: str) -> RunError:
    """The error of a training whose loss or gradients are no longer finite."""
    setting = "supernet.learning_rate" if where.startswith("supernet") else "retrain.learning_rate"
    return RunError(
        f"{where}: the loss is not finite; the last good checkpoint is kept; "
        f"lower {setting}, or use --precision fp32"
    )


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Mixed precision around forward passes."""
    if precision == "fp32":
        return nullcontext()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(device.type, dtype=dtype)
