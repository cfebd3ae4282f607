"""What a student's README says of it."""

from huggingface_hub import ModelCard

from diffnas.model_card import model_card
from diffnas.names import public_name

ARCHITECTURE = {
    "teacher": {"source": "google/ddpm-cat-256", "params": 200, "macs": 1000},
    "cost": {"params": 150, "macs": 500},
}


def test_a_card_names_the_teacher_and_what_was_saved():
    card = model_card(ARCHITECTURE, own_class=True)
    assert "A smaller `google/ddpm-cat-256`," in card
    assert "| MACs | 1.00 k | 500 | 0.50 |" in card


def test_the_hub_is_told_of_the_library_and_of_a_teacher_that_is_on_it():
    data = ModelCard(model_card(ARCHITECTURE, own_class=True)).data
    assert (data.library_name, data.base_model) == ("diffusers", "google/ddpm-cat-256")
    assert data.tags == ["diffnas", "diffusion"]
    local = {**ARCHITECTURE, "teacher": {**ARCHITECTURE["teacher"], "source": "my-cats"}}
    assert ModelCard(model_card(local, own_class=True)).data.base_model is None


def test_remote_code_is_asked_for_only_where_a_class_travels():
    assert "trust_remote_code=True" in model_card(ARCHITECTURE, own_class=True)
    stock = model_card(ARCHITECTURE, own_class=False)
    assert "`DiffusionPipeline.from_pretrained(folder)`." in stock
    assert "remote" not in stock
    assert "class file" not in stock


def test_a_path_is_known_to_others_by_its_last_part_alone(tmp_path, monkeypatch):
    folder = tmp_path / "someone" / "cats"
    folder.mkdir(parents=True)
    assert public_name(str(folder)) == "cats"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert public_name("~/someone/cats") == "cats"
    assert public_name("google/ddpm-cat-256") == "google/ddpm-cat-256"
    assert public_name("digits") == "digits"
