"""Whatever is mistyped is told in one line on stderr, with the remedy, and status 2."""

import os
from pathlib import Path

import pytest

from diffnas.cli import main
from tests.models import tiny_unet

COMPRESS = "compress model --data digits"


def mistake(capsys: pytest.CaptureFixture[str], command: str) -> str:
    """Run the command and return its one line, having checked that it is one."""
    status = main(command.split(" "))
    printed, told = capsys.readouterr()
    assert status == 2
    assert printed == ""
    assert told.startswith("diffnas: ")
    assert told.count("\n") == 1
    assert "Traceback" not in told
    return told


@pytest.mark.parametrize("verb", ["compress model --data digits", "plan model"])
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("--macs half", "--macs half: not a number"),
        ("--macs 0,5", "--macs 0,5: not a number"),
        ("--params nan", "--params nan: not a number"),
        ("--macs 0", "--macs 0: must be above 0"),
        ("--macs -0.5", "--macs -0.5: must be above 0"),
        ("--params 1.5", "share of the teacher's is at most 1"),
        ("--memory 120%", "share of the teacher's is at most 1"),
        ("--latency 3GiB", "'GiB' is no unit of latency (us, ms, s)"),
        ("--macs 1e308T", "--macs 1e308T: is out of all range; give a share"),
        ("--tolerance 0", "--tolerance 0: must be a number above 0"),
        ("--tolerance -2", "--tolerance -2: must be a number above 0"),
        ("--tolerance lots", "--tolerance lots: must be a number above 0"),
        ("--tolerance 2 --macs 0.5", "contradicts --macs 0.5"),
        ("--tolerance 2 --rule random", "--tolerance 2: is the local rule's, --rule random has"),
        ("--space huge", "--space huge: must be 'full', 'paper' or 'stock'"),
        ("--rule lokal", "--rule lokal: unknown; did you mean 'local'?"),
        ("--set select.rule=lokal", "unknown; did you mean 'local'?"),
        ("--set supernet.step=5", "'supernet.step' is unknown; did you mean 'supernet.steps'?"),
        ("--set steps=5", "did you mean"),
        ("--set zzz.qqq=5", "setting 'zzz' is unknown; known: data,"),
        ("--set supernet.steps", "--set supernet.steps: not of the form KEY=VALUE"),
        ("--set supernet.steps=many", "'supernet.steps' = 'many'"),
        ("--set supernet.steps=0", "'supernet.steps' = 0: must be above 0"),
        ("--set supernet.steps=[1", "the value is not valid YAML"),
        ("--set space.include=*", "needs quotes of its own: KEY='\"*\"'"),
        ("--set space.conv_ranks=0.5,0.25", "must be a number; a list has brackets: [0.5,0.25]"),
        ("--set seed.inner.deep=1", "seed"),
        ("--settings missing.yaml", "No such file or directory; name a YAML file"),
        ("--max-steps ten", "--max-steps ten: must be a whole number"),
        ("--max-steps 0", "--max-steps 0: must be above 0"),
        ("--batch-size 9999999999", "--batch-size 9999999999: must be below 2147483648"),
        ("--batch-size 1.5", "--batch-size 1.5: must be a whole number"),
        ("--seed -1", "--seed -1: must be 0 or more"),
        ("--precision fp8", "--precision fp8: must be 'fp32', 'bf16' or 'fp16'"),
        ("--device tpu", "--device tpu: unknown; one of auto, cpu, cuda, mps, cuda:N"),
        ("--device cuda:99", "--device cuda:99: "),
    ],
)
def test_of_budgets_and_settings(capsys, verb, given, words):
    assert words in mistake(capsys, f"{verb} {given}")


@pytest.mark.parametrize("given", ["--params 0.5", "--tolerance 2", "--until scores"])
def test_smallest_goes_alone(capsys, given):
    told = mistake(capsys, f"compress digits --smallest {given}")
    assert f"--smallest contradicts {given}: give one or the other" in told


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("compres model", "Did you mean 'compress'? See 'diffnas --help'"),
        ("frobnicate", "No such command 'frobnicate'"),
        ("compress", "Missing argument 'MODEL'"),
        ("compress a b", "unexpected extra argument"),
        ("compress model", "--data: missing; give a folder of images"),
        ("evaluate pipeline", "--data: missing; give a folder of images"),
        ("compress model --mac 0.5", "No such option: --mac (Possible options: --macs"),
        ("compress model --until scoring", "--until scoring: unknown; did you mean 'scores'?"),
        ("compress model --until xyz", "--until xyz: unknown; one of plan, supernet"),
        ("compress model --macs", "'--macs' requires an argument; see 'diffnas compress --help'"),
        ("plan model --images many", "--images many: must be a whole number above 0"),
        ("plan model --images 0", "--images 0: must be a whole number above 0"),
        ("sample model --count many", "--count many: must be a whole number above 0"),
        ("sample model --count -3", "--count -3: must be a whole number above 0"),
        ("sample model --steps many", "--steps many: must be a whole number"),
        ("sample model --sampler magic", "--sampler magic: must be 'ddim', 'dpm"),
        ("sample model --out grid.jpg", "--out grid.jpg: must end in .png"),
        ("sample model --out nowhere/grid.png", "there is no folder nowhere"),
        ("evaluate model --data digits --batch-size no", "--batch-size no: must be"),
        ("report missing", "RUN missing: no such folder"),
        ("demo --device tpu", "--device tpu: unknown"),
    ],
)
def test_of_commands_and_options(capsys, command, words):
    assert words in mistake(capsys, command)


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("compress digits --out ", "argument '' after --out"),
        ("compress digits --out=", "--out ''"),
        ("compress model --data ", "argument '' after --data"),
        ("compress digits --smallest ", "argument '' after --smallest"),
        ("sample model --out ", "argument '' after --out"),
        ("plan model --set=", "--set ''"),
        ("plan ", "argument ''"),
        ("export onnx model ", "argument ''"),
    ],
)
def test_of_a_variable_of_the_shell_that_is_not_set(capsys, command, named):
    assert f"diffnas: {named}: is empty; give a value" in mistake(capsys, command)


@pytest.mark.parametrize("given", ["--prompt ", "--prompt="])
def test_an_empty_prompt_is_none(capsys, given):
    assert "--count 0: must be" in mistake(capsys, f"sample model {given} --count 0")


@pytest.mark.parametrize(
    "command",
    [
        "sample model --prompt=1+1= --count 0",
        "sample model --prompt 1+1= --count 0",
        "plan model --set=data.limit= --images 0",
        "plan model --set data.limit= --images 0",
    ],
)
def test_a_value_that_ends_in_an_equals_sign_is_not_empty(capsys, command):
    assert " 0: must be a whole number" in mistake(capsys, command)


@pytest.mark.parametrize(
    "command",
    [
        ["plan", "~nobody-here/model"],
        ["compress", "digits", "--data", "~nobody-here/images"],
        ["compress", "digits", "--data", "digits", "--out", "~nobody-here/run"],
        ["sample", "digits", "--out", "~nobody-here/grid.png"],
    ],
)
def test_of_the_home_of_a_user_who_is_not_there(capsys, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)  # where a run folder without a name would be made
    assert main(command) == 2
    assert "a path begins with ~ and a name that no user here has" in capsys.readouterr().err


def test_of_a_device_that_is_absent(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    for name in ("cuda:01", "cuda:9999"):
        assert f"--device {name}: unknown" in mistake(capsys, f"{COMPRESS} --device {name}")
    for name in ("cuda", "cuda:1"):
        told = mistake(capsys, f"{COMPRESS} --device {name}")
        assert f"--device {name}: no CUDA device is present; use cpu or auto" in told
    assert "no Apple GPU is present; use cpu" in mistake(capsys, f"{COMPRESS} --device mps")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("supernet:\n  steps: [1", "not valid YAML at line"),
        ("- a\n- b", "must hold 'section: {key: value}' entries"),
        ("supernet: 3", "'supernet' = 3"),
        ("supernet:\n  stepz: 3", "did you mean 'supernet.steps'?"),
    ],
)
def test_of_a_settings_file(capsys, tmp_path, text, words):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    assert words in mistake(capsys, f"{COMPRESS} --settings {file}")


def test_of_a_settings_file_that_is_no_text(capsys, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_bytes(b"\xff\xfe\x00\x80")
    assert "not valid YAML" in mistake(capsys, f"{COMPRESS} --settings {file}")


@pytest.mark.parametrize("below", ["", "/run"])
def test_of_a_run_folder_that_is_a_file(capsys, tmp_path, below):
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    assert f"{file} is a file; name a folder" in mistake(capsys, f"{COMPRESS} --out {file}{below}")
    assert file.read_text() == "mine"


@pytest.mark.parametrize("command", [COMPRESS, "demo"])
def test_of_a_run_folder_that_cannot_be_written(capsys, tmp_path, monkeypatch, command):
    # The superuser may write anywhere, so the system's answer is given here.
    real = os.access
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path and real(path, mode))
    told = mistake(capsys, f"{command} --out {tmp_path}/run")
    assert f"{tmp_path} cannot be read and written; choose another folder" in told


def test_of_a_grid_that_is_a_folder(capsys, tmp_path):
    folder = tmp_path / "grid.png"
    folder.mkdir()
    assert "is a folder; name a file in it" in mistake(capsys, f"sample model --out {folder}")


@pytest.mark.parametrize(
    "verb", ["compress {} --data digits", "evaluate {} --data digits", "sample {}"]
)
def test_of_a_denoiser_alone(capsys, tmp_path, monkeypatch, verb):
    monkeypatch.chdir(tmp_path)
    tiny_unet().save_config("unet")
    told = mistake(capsys, verb.format("unet"))
    assert "model unet: no model_index.json, so no diffusers pipeline" in told
    assert [each.name for each in tmp_path.iterdir()] == ["unet"]


def test_of_a_folder_that_is_no_run(capsys, tmp_path):
    assert "no run folder" in mistake(capsys, f"report {tmp_path}")


@pytest.mark.parametrize("name", ["settings.yaml", "plan.json"])
def test_of_a_folder_with_files_of_the_same_names(capsys, tmp_path, name):
    (tmp_path / name).write_text('{"space": 5}')
    (tmp_path / "report.html").write_text("mine")
    assert "are no run's; name another" in mistake(capsys, f"report {tmp_path}")
    assert (tmp_path / "report.html").read_text() == "mine"


def test_leaves_nothing_behind(capsys, tmp_path):
    mistake(capsys, f"{COMPRESS} --out {tmp_path}/run --macs nothing")
    assert list(tmp_path.iterdir()) == []
