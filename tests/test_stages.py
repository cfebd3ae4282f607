"""What a stage leaves in the run folder; whole runs are in ``tests/end_to_end``."""

from pathlib import Path

from diffnas import stages
from diffnas.budget import parse_budget
from diffnas.progress import Progress
from diffnas.settings import parse
from diffnas.space import make_space
from tests.engine import SMALL_SPACE, tiny_data, tiny_teacher

ONE_STEP = {"supernet": {"steps": 1, "batch_size": 2, "learning_rate": 1e-3}}


def test_checkpoints_of_another_number_of_groups_go_with_the_supernets_own(tmp_path: Path) -> None:
    teacher, folder = tiny_teacher(), tmp_path / "supernet"
    space = make_space(teacher.denoiser, teacher.family, SMALL_SPACE)
    folder.mkdir()
    (folder / "checkpoint-3.safetensors").write_bytes(b"")
    job = stages.Job(
        tmp_path, teacher, "", tiny_data(), space, parse(ONE_STEP), parse_budget(), Progress()
    )
    stages.supernet(job)
    assert [file.name for file in folder.iterdir()] == ["supernet.safetensors"]
