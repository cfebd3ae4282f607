import pytest
from pydantic import ValidationError

from diffnas.errors import UserError
from diffnas.settings import Settings, known_names, load, parse


@pytest.fixture
def write(tmp_path):
    """Write a settings file and give its path."""

    def write(text):
        file = tmp_path / "mine.yaml"
        file.write_text(text)
        return file

    return write


def refusal(*args, **kwargs):
    """The one line a user reads."""
    with pytest.raises(UserError) as caught:
        load(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_file_and_no_assignment_give_the_defaults():
    assert load() == parse({}) == Settings()


def test_a_file_sets_what_it_names_and_nothing_else(write):
    settings = load(write("retrain:\n  steps: 7\nseed: 3\n"))
    assert settings.retrain.steps == 7
    assert settings.seed == 3
    assert settings.supernet == Settings().supernet


def test_an_empty_file_sets_nothing(write):
    assert load(write("# nothing yet\n")) == Settings()


def test_an_assignment_wins_over_the_file(write):
    file = write("supernet:\n  steps: 100\n  batch_size: 8\n")
    settings = load(file, ("supernet.steps=500",))
    assert settings.supernet.steps == 500
    assert settings.supernet.batch_size == 8


def test_the_last_assignment_wins():
    assert load(None, ("seed=1", "seed=2")).seed == 2


@pytest.mark.parametrize(
    ("assignment", "section", "name", "value"),
    [
        ("space.resnet_kernels=[1, 5]", "space", "resnet_kernels", (1, 5)),
        ("space.resnet_skip=false", "space", "resnet_skip", False),
        ("supernet.learning_rate=0.001", "supernet", "learning_rate", 0.001),
        ("supernet.learning_rate=1e-3", "supernet", "learning_rate", 0.001),
        ("retrain.steps=null", "retrain", "steps", None),
        ("data.image_column=a=b", "data", "image_column", "a=b"),
    ],
)
def test_an_assignments_value_is_yaml(assignment, section, name, value):
    assert getattr(getattr(load(None, (assignment,)), section), name) == value


def test_a_dotted_name_is_a_setting_in_a_file_and_in_a_program(write):
    wanted = parse({"retrain": {"steps": 7, "batch_size": 2}})
    assert parse({"retrain.steps": 7, "retrain": {"batch_size": 2}}) == wanted
    assert load(write("retrain.steps: 7\nretrain:\n  batch_size: 2\n")) == wanted
    assert "seed is a value, not a section" in refusal(write("seed: 1\nseed.steps: 2\n"))


@pytest.mark.parametrize(("text", "value"), [("010", 10), ("+3", 3), ("0", 0)])
def test_a_whole_number_is_read_as_people_write_it(text, value):
    assert load(None, (f"seed={text}",)).seed == value


def test_so_it_is_in_lists_and_files(write):
    assert load(None, ("evaluate.seeds=[010]",)).evaluate.seeds == (10,)
    assert load(write("retrain:\n  steps: 010\n")).retrain.steps == 10


@pytest.mark.parametrize(
    "assignment", ["evaluate.seeds=[yes, no]", "space.resnet_widths=[yes]", "seed=2021-13-45"]
)
def test_nor_is_what_it_takes_for_a_truth_or_a_date(assignment):
    assert f"setting '{assignment.partition('=')[0]}' = " in refusal(None, (assignment,))


@pytest.mark.parametrize("text", ["1:30", "0x10", "yes", "true"])
def test_what_only_yaml_takes_for_a_number_is_none(text):
    assert "setting 'seed' = " in refusal(None, (f"seed={text}",))
    assert "setting 'retrain.weight_decay' = " in refusal(None, (f"retrain.weight_decay={text}",))


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("supernet.stepps", "supernet.steps"),
        ("retrian.steps", "retrain"),
        ("sede", "seed"),
        ("resnet_skip", "space.resnet_skip"),
    ],
)
def test_an_unknown_setting_is_answered_with_the_nearest_one(key, nearest):
    assert f"did you mean '{nearest}'?" in refusal(None, (f"{key}=1",))


def test_a_setting_like_no_other_is_answered_with_all_sections():
    known = ", ".join(Settings.model_fields)
    assert refusal(None, ("xyzzy=1",)) == f"setting 'xyzzy' is unknown; known: {known}"


def test_a_setting_like_no_other_of_its_section_is_answered_with_all_of_that():
    key = "supernet." + 20 * "q"
    known = ", ".join(name for name in known_names() if name.startswith("supernet."))
    assert refusal(None, (f"{key}=1",)) == f"setting '{key}' is unknown; known: {known}"


@pytest.mark.parametrize(
    ("assignment", "name", "value"),
    [
        ("supernet.steps=0", "supernet.steps", "0"),
        ("supernet.learning_rate=-1", "supernet.learning_rate", "-1"),
        ("retrain.learning_rate=.inf", "retrain.learning_rate", "inf"),
        ("retrain.output_weight=.inf", "retrain.output_weight", "inf"),
        ("data.held_out=1.0", "data.held_out", "1.0"),
        ("space.resnet_widths=[0.5, 2.5]", "space.resnet_widths", "2.5"),
        ("space.resnet_kernels=[2]", "space.resnet_kernels", "2"),
        ("space.attention_heads=[1.0]", "space.attention_heads", "1.0"),
        ("evaluate.seeds=[]", "evaluate.seeds", "[]"),
        ("evaluate.samples=2", "evaluate.samples", "2"),
        ("score.evaluations=19", "score.evaluations", "19"),
        ("retrain.ema_decay=1.0", "retrain.ema_decay", "1.0"),
        ("retrain.schedule=sudden", "retrain.schedule", "'sudden'"),
        ("seed=-1", "seed", "-1"),
        ("precision=fp8", "precision", "'fp8'"),
        ("supernet=5", "supernet", "5"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_setting(assignment, name, value):
    assert f"setting '{name}' = {value}: " in refusal(None, (assignment,))


@pytest.mark.parametrize(
    ("assignment", "allowed"),
    [
        ("precision=fp8", "must be 'fp32', 'bf16' or 'fp16'"),
        ("space.resnet_kernels=[2]", "must be 1, 3 or 5"),
        ("supernet.steps=many", "must be a whole number"),
        ("supernet.steps=1.5", "must be a whole number"),
        ("supernet.steps=[1]", "must be a whole number"),
        ("supernet.steps=0", "must be above 0"),
        ("evaluate.samples=2", "must be 16 or more"),
        ("data.held_out=1", "must be below 1"),
        ("seed=2147483648", "must be below 2147483648"),
        ("data.condition_dropout=2", "must be 1 or less"),
        ("retrain.learning_rate=fast", "must be a number"),
        ("retrain.learning_rate=.inf", "must be a finite number"),
        ("space.resnet_skip=perhaps", "must be true or false"),
        ("data.label_column=[a]", "must be text"),
        ("evaluate.seeds={}", "must be a list, such as [a, b]"),
        ("evaluate.seeds=[]", "must not be empty"),
        ("evaluate.seeds=[1, 1]", "must not have one seed twice"),
        ("supernet=5", "must be a section of settings, such as {key: value}"),
    ],
)
def test_what_a_value_must_be_is_said_in_our_own_words(assignment, allowed):
    assert refusal(None, (assignment,)).endswith(f": {allowed}")


@pytest.mark.parametrize(
    ("preset", "unread"),
    [
        ("paper", "resnet_kernels=[1, 5]"),
        ("paper", "transformer_skip=false"),
        ("stock", "attention_heads=[0.25]"),
        ("stock", "multiple_of=8"),
    ],
)
def test_a_setting_that_the_preset_does_not_read_is_refused(preset, unread):
    line = refusal(None, (f"space.{unread}", f"space.preset={preset}"))
    assert line.startswith(f"setting 'space.{unread.partition('=')[0]}' = ")
    assert line.endswith(f": the preset '{preset}' does not read it; leave it out, or use 'full'")


@pytest.mark.parametrize("also", ["transformer_layers=[0.25]", "resnet_kernels=[1]", "trunk=1"])
def test_a_setting_that_the_preset_reads_or_that_is_the_default_is_taken(also):
    assert load(None, ("space.preset=stock", f"space.{also}")).space.preset == "stock"


@pytest.mark.parametrize(
    "key", ["data.label_column", "retrain.batch_size", "evaluate.guidance", "max_steps"]
)
@pytest.mark.parametrize("word", ["none", "None", "auto"])
def test_a_word_that_the_guide_has_for_a_default_is_no_value(key, word):
    told = refusal(None, (f"{key}={word}",))
    assert told == f"setting '{key}' = '{word}': is no value; leave it out, or give null"


@pytest.mark.parametrize("key", ["data.augment=none", "evaluate.features=auto", "device=auto"])
def test_where_such_a_word_is_a_value_it_is_taken(key):
    load(None, (key,))


@pytest.mark.parametrize("assignment", ["supernet.steps", "=5", ""])
def test_an_assignment_without_key_or_value_is_shown_its_form(assignment):
    assert "not of the form KEY=VALUE" in refusal(None, (assignment,))


def test_an_assignment_whose_value_is_no_yaml_is_refused():
    assert "--set seed=[1: the value is not valid YAML" in refusal(None, ("seed=[1",))


def test_an_assignment_into_a_value_is_refused(write):
    line = refusal(write("seed: 3\n"), ("seed.low=1",))
    assert line == "--set seed.low=1: seed is a value, not a section"


def test_a_broken_file_is_named_with_the_line(write):
    file = write("seed: 3\nsupernet: [1, 2\nretrain:\n")
    assert refusal(file) == f"--settings {file}: not valid YAML at line 3"


@pytest.mark.parametrize(
    ("text", "line", "name"),
    [
        ("retrain:\n  steps: 7\nseed: 3\nretrain:\n  batch_size: 2\n", 4, "retrain"),
        ("retrain:\n  steps: 5\n  steps: 9\n", 3, "steps"),
    ],
)
def test_what_a_file_says_twice_is_refused(write, text, line, name):
    file = write(text)
    told = f"--settings {file}: not valid YAML at line {line}: {name} is there twice"
    assert refusal(file) == told


@pytest.mark.parametrize("text", ["retrain: &a {b: *a}", "a: " + 3000 * "[", "seed: " + 5000 * "9"])
def test_a_file_without_an_end_is_refused(write, text):
    assert "not valid YAML" in refusal(write(text))


def test_a_file_that_is_not_text_is_refused(tmp_path):
    file = tmp_path / "photo.png"
    file.write_bytes(b"\x89PNG\xff")
    assert refusal(file) == f"--settings {file}: not valid YAML"


def test_a_missing_file_is_named(tmp_path):
    assert refusal(tmp_path / "none.yaml") == (
        f"--settings {tmp_path / 'none.yaml'}: No such file or directory; name a YAML file"
    )


def test_a_file_of_a_list_is_refused(write):
    assert "must hold 'section: {key: value}' entries" in refusal(write("- seed\n"))


def test_settings_read_back_from_what_they_print():
    settings = load(None, ("space.resnet_widths=[0.5]", "evaluate.seeds=[1, 2]", "seed=9"))
    assert parse(settings.model_dump(mode="json")) == settings


def test_every_setting_has_one_dotted_name():
    names = known_names()
    assert len(set(names)) == len(names)
    assert {"seed", "supernet.steps", "retrain.schedule", "evaluate.sampler"} <= set(names)


def test_settings_are_never_changed_in_place():
    with pytest.raises(ValidationError, match="frozen"):
        Settings().seed = 1


def test_the_only_member_of_a_list_may_be_given_as_it_is():
    given = ("space.include=mid_block.*", "space.resnet_widths=0.5", "evaluate.seeds=3")
    settings = load(assignments=given)
    assert settings.space.include == ("mid_block.*",)
    assert settings.space.resnet_widths == (0.5,)
    assert settings.evaluate.seeds == (3,)


def test_an_empty_section_of_a_file_is_none(write):
    assert load(write("retrain:\n  # steps: 7\nseed: 3\n")) == parse({"seed": 3})


def test_an_assignment_into_an_empty_section_fills_it(write):
    assert load(write("retrain:\n"), ("retrain.steps=5",)).retrain.steps == 5
