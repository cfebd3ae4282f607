"""Devices by name."""

import subprocess
import sys

import pytest
import torch

from diffnas import device as devices
from diffnas.device import check_device_name, device_name, resolve_device
from diffnas.errors import UserError


def present(monkeypatch: pytest.MonkeyPatch, *, cuda: int = 0, mps: bool = False) -> None:
    """Pretend that so many CUDA devices, and an Apple GPU, are there."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "best"), [(2, True, "cuda"), (0, True, "mps"), (0, False, "cpu")]
)
def test_auto_takes_the_best_one_present(monkeypatch, cuda, mps, best):
    present(monkeypatch, cuda=cuda, mps=mps)
    assert resolve_device("auto") == torch.device(best)


def test_a_name_is_taken_as_it_is(monkeypatch):
    present(monkeypatch, cuda=2, mps=True)
    for name in ("cpu", "cuda", "cuda:1", "mps"):
        assert resolve_device(name) == torch.device(name)


@pytest.mark.parametrize(
    ("name", "cuda", "words"),
    [
        ("cuda", 0, "no CUDA device is present; use cpu or auto"),
        ("cuda:0", 0, "no CUDA device is present; use cpu or auto"),
        ("cuda:2", 2, "the last one here is cuda:1"),
        ("mps", 2, "no Apple GPU is present; use cpu or auto"),
    ],
)
def test_one_that_is_absent_is_refused_with_the_remedy(monkeypatch, name, cuda, words):
    present(monkeypatch, cuda=cuda)
    with pytest.raises(UserError) as error:
        resolve_device(name)
    assert str(error.value) == f"--device {name}: {words}"


@pytest.mark.parametrize("name", ["tpu", "CPU", "cuda:", "cuda:x", "cuda:-1", "cpu:0", ""])
def test_what_names_no_device_is_refused(name):
    with pytest.raises(UserError, match="unknown; one of auto, cpu, cuda, mps, cuda:N"):
        check_device_name(name)


def test_a_mistyped_name_is_told_without_waiting_for_torch():
    code = (
        "import sys\n"
        "from diffnas.cli import main\n"
        "status = main(['compress', 'digits', '--device', 'tpu'])\n"
        "sys.exit(status if 'torch' not in sys.modules else 99)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 2


def test_a_gpu_is_called_what_its_driver_calls_it(monkeypatch):
    names = {torch.device("cuda:0"): "Small GPU", torch.device("cuda:1"): "Large GPU"}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: names[device])
    assert device_name("cuda:0") == "Small GPU"
    assert device_name(torch.device("cuda:1")) == "Large GPU"


@pytest.mark.parametrize(
    ("told", "name"),
    [("processor : 0\nmodel name\t: Old CPU @ 1 GHz\n", "Old CPU @ 1 GHz"), ("", "x86_64")],
)
def test_a_processor_is_called_by_its_model_or_else_its_architecture(
    monkeypatch, tmp_path, told, name
):
    (tmp_path / "cpuinfo").write_text(told)
    monkeypatch.setattr(devices, "Path", lambda _: tmp_path / "cpuinfo")
    monkeypatch.setattr(devices.platform, "processor", lambda: "")
    monkeypatch.setattr(devices.platform, "machine", lambda: "x86_64")
    assert device_name("cpu") == name
    assert device_name("mps") == f"{name} GPU"
