"""What a student's README says of it."""

from dataclasses import replace
from typing import Any

import pytest
from huggingface_hub import ModelCard

from diffnas.families import Teacher, dit, unet2d_condition
from diffnas.model_card import About, about, model_card
from diffnas.names import OWN_SAMPLES, public_name
from tests.engine import teacher_of, tiny_inpainter, tiny_teacher
from tests.models import tiny_dit, tiny_stable_diffusion

COSTS = {"params": 150, "macs": 500}
ARCHITECTURE = {
    "name": "macs-0.5",
    "rule": "global-exact",
    "teacher": {"source": "google/ddpm-cat-256", "params": 200, "macs": 1000},
    "cost": COSTS,
}
LOCAL = {**ARCHITECTURE, "teacher": {**ARCHITECTURE["teacher"], "source": "my-cats"}}
RETRAINING = {"steps": 900, "batch_size": 64, "optimizer": "muon", "learning_rate": 0.002}
MADE = {
    "settings": {"seed": 3, "precision": "bf16", "retrain": RETRAINING},
    "whole_steps": 900,
}
ABOUT = About(
    pipeline="DDPMPipeline",
    task="unconditional-image-generation",
    tags=("diffnas", "diffusion"),
    data="owner/cats:small",
    device="Some Processor",
    own_class=True,
)
PROTOCOL = {
    "sampler": "ddim",
    "steps": 20,
    "samples": 1024,
    "seeds": [0, 1, 2],
    "guidance": 3.5,
    "features": "97 fixed patch statistics",
    "reference": "/home/someone/cats",
    "held_out_images": 359,
    "seen_images": 1438,
    "real_frechet_distance": 0.5261,
    "device": "cpu",
    "torch": "2.9",
}
METRICS = {
    "protocol": PROTOCOL,
    "teacher": {
        **{key: 2 * value for key, value in COSTS.items()},
        "latency_ms": 4.2,
        "frechet_distance": {"mean": 0.802, "std": 0.021},
        "denoising_loss": 0.0421,
    },
    "student": {
        **COSTS,
        "latency_ms": 2.6,
        "frechet_distance": {"mean": 0.861, "std": 0.032},
        "denoising_loss": 0.0434,
    },
}


def written(metrics: Any = METRICS, architecture: Any = ARCHITECTURE, **how: Any) -> str:
    return model_card(replace(ABOUT, **how), architecture, MADE, metrics)


def head(card: str) -> Any:
    """Its front matter, as the Hub reads it."""
    return ModelCard(card).data


def test_a_card_names_the_teacher_and_what_was_saved() -> None:
    card = written(metrics=None)
    assert "A smaller `google/ddpm-cat-256`," in card
    assert "| MACs | 1.00 k | 500 | 0.50 |" in card


def test_quality_and_latency_stand_beside_the_teachers_with_the_deviation_over_seeds() -> None:
    card = written()
    assert "| Fréchet distance, held-out images | 0.802 ± 0.021 | 0.861 ± 0.032 | 1.07 |" in card
    assert "| denoising loss, held-out images | 0.0421 | 0.0434 | 1.03 |" in card
    assert "| latency | 4.20 ms | 2.60 ms | 0.62 |" in card
    assert "latency on Some Processor" in card
    assert "± is the deviation over the seeds" in card


def test_the_protocol_is_told() -> None:
    card = written()
    assert "1024 for each sampling seed (0 1 2), sampler ddim, 20 steps, guidance 3.5" in card
    assert "by 97 fixed patch statistics, to 359 held-out and 1438 seen images" in card


def test_what_is_not_measured_is_said_to_be_so() -> None:
    card = written(metrics=None)
    assert "Latency, memory and the quality of its images are not measured yet." in card
    assert "Fréchet" not in card
    assert "not measured yet" not in written()


def test_one_sampling_seed_is_said_to_be_one() -> None:
    card = written({**METRICS, "protocol": {**PROTOCOL, "seeds": [0]}})
    assert "1 sampling seed cannot tell a small difference from chance" in card
    assert "deviation over" not in card


def test_retraining_is_told() -> None:
    told = "900 steps of 64 images, Muon, peak learning rate 0.002, bf16, seed 3"
    assert f"Retraining: {told}" in written(metrics=None)


def test_a_student_whose_retraining_was_cut_short_is_a_trial() -> None:
    assert "A trial" not in written()
    card = model_card(ABOUT, ARCHITECTURE, {**MADE, "whole_steps": 5000}, METRICS)
    assert "cut its retraining short after 900 of 5000 steps" in card


def test_the_hub_is_told_of_the_library_the_task_and_what_is_on_it() -> None:
    data = head(written())
    assert (data.library_name, data.base_model) == ("diffusers", "google/ddpm-cat-256")
    assert data.pipeline_tag == "unconditional-image-generation"
    assert data.datasets == ["owner/cats"]
    assert data.tags == ["diffnas", "diffusion"]


def test_it_is_told_nothing_of_what_is_not_on_it_and_no_licence() -> None:
    data = head(written(architecture=LOCAL, data="digits"))
    assert (data.base_model, data.datasets, data.license) == (None, None, None)


def test_the_licence_is_said_to_be_the_teachers() -> None:
    assert "## Licence\n\nThat of `my-cats`" in written(architecture=LOCAL)


def class_conditional() -> Teacher:
    pipeline = tiny_dit()
    return Teacher("tiny", pipeline, pipeline.transformer, dit.FAMILY)


@pytest.mark.parametrize(
    ("make", "task", "tag"),
    [
        (tiny_teacher, "unconditional-image-generation", "diffusion"),
        (class_conditional, "unconditional-image-generation", "class-conditional"),
        (
            lambda: teacher_of(tiny_stable_diffusion(), unet2d_condition.FAMILY),
            "text-to-image",
            "diffusion",
        ),
        (tiny_inpainter, "image-to-image", "inpainting"),
    ],
)
def test_the_task_is_that_of_the_pipeline(make: Any, task: str, tag: str) -> None:
    found = about(make(), "digits", "cpu", own_class=True)
    assert found.task == task
    assert tag in found.tags


def test_remote_code_is_asked_for_only_where_a_class_travels() -> None:
    assert "trust_remote_code=True" in written()
    stock = written(own_class=False)
    assert 'DiffusionPipeline.from_pretrained("path or Hub id")' in stock
    assert "remote" not in stock
    assert "its file" not in stock


def test_data_are_known_to_others_by_their_last_part_alone(tmp_path) -> None:
    folder = tmp_path / "someone" / "cats"
    folder.mkdir(parents=True)
    card = written(data=str(folder))
    assert "seen images of `cats`" in card
    assert "someone" not in card


def test_the_teachers_own_samples_are_called_so() -> None:
    assert "Data: the teacher's own samples" in written(data=OWN_SAMPLES)


def test_a_path_is_known_to_others_by_its_last_part_alone(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "someone" / "cats"
    folder.mkdir(parents=True)
    assert public_name(str(folder)) == "cats"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert public_name("~/someone/cats") == "cats"
    assert public_name("google/ddpm-cat-256") == "google/ddpm-cat-256"
    assert public_name("digits") == "digits"
