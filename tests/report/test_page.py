"""The page: self-contained, tolerant of missing stages, and true to the files."""

import json
import os
import re
from html.parser import HTMLParser

import pytest

from diffnas.errors import UserError
from diffnas.report import write_report
from diffnas.report.curves import scatter
from diffnas.report.files import read_run
from tests.report.runs import BLOCKS, STAGES, make_run, metrics

VOID = {"meta", "img", "br"}


class Tags(HTMLParser):
    """Collects attributes and visible text, and checks that tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words += f"{data} "


def page_of(run) -> str:
    return write_report(run).read_text(encoding="utf-8")


def test_needs_no_network_and_no_script(tmp_path):
    text = page_of(make_run(tmp_path / "demo"))
    tags = Tags(text)
    links = [value for _, name, value in tags.attributes if name in ("src", "href", "srcset")]
    assert links
    assert all(link.startswith("data:image/png;base64,") for link in links)
    assert "http:" not in text
    assert "https:" not in text
    assert "<script" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert not [name for _, name, _ in tags.attributes if name.startswith("on")]


def test_says_what_the_student_costs_and_how_good_it_is(tmp_path):
    words = Tags(page_of(make_run(tmp_path / "demo"))).words
    assert "macs-0.5 needs 0.50 of the teacher's MACs and 0.50 of its parameters" in words
    assert "is 0.861 ± 0.032 against the teacher's 0.802 ± 0.021 (1.07 times)" in words
    assert "denoising loss, held-out images" in words
    assert "not measured" in words
    assert "dpmsolver" in words
    assert "359 held-out images" in words


def test_says_what_the_numbers_leave_open(tmp_path):
    words = Tags(page_of(make_run(tmp_path / "demo"))).words
    assert "1 sampling seed cannot tell a small difference from chance" in words
    assert "Distances from 512 samples are biased upwards" in words


@pytest.mark.parametrize("until", STAGES)
def test_a_run_that_stopped_anywhere_has_a_page(tmp_path, until):
    text = page_of(make_run(tmp_path / "demo", until))
    words = Tags(text).words
    reached = STAGES[: STAGES.index(until) + 1]
    assert "Search space" in words
    assert ("Supernet training" in words) == ("supernet" in reached)
    assert ("Score table" in words) == ("scores" in reached)
    assert ("What each block became" in words) == ("student" in reached)
    assert ("Samples from the same seeds" in words) == ("metrics" in reached)
    assert ("No student yet" in words) == ("student" not in reached)
    assert ("its quality is not measured yet" in words) == (until == "student")


def test_settings_and_a_log_are_run_enough(tmp_path):
    (tmp_path / "settings.yaml").write_text("seed: 3\n")
    (tmp_path / "log.jsonl").touch()
    assert "seed: 3" in Tags(page_of(tmp_path)).words


def test_each_student_has_its_part(tmp_path):
    run = make_run(tmp_path / "demo")
    make_run(run, name="macs-0.3")
    words = Tags(page_of(run)).words
    assert words.count("What each block became") == 2
    assert "macs-0.3 needs" in words
    assert "macs-0.5 needs" in words


def test_options_are_those_that_the_student_had_whatever_was_planned_since(tmp_path):
    run = make_run(tmp_path / "r")
    before = page_of(run)
    plan = json.loads((run / "plan.json").read_text())
    for block in plan["blocks"]:
        block["slots"] = []
    (run / "plan.json").write_text(json.dumps(plan))
    assert "width 0.25" in before
    assert page_of(run).count("width 0.25") == before.count("width 0.25")


def test_errors_at_the_output_stand_before_block_losses_where_they_were_measured(tmp_path):
    run = make_run(tmp_path / "demo")
    file = next(run.glob("students/*/architecture.json"))
    architecture = json.loads(file.read_text())
    assert "error at the output" not in page_of(run)
    architecture["losses"]["mid_block"] |= {"output_error": 0.006, "output_benchmark": 0.002}
    file.write_text(json.dumps(architecture))
    assert "error at the output 0.00600, 3.00 times its benchmark 0.00200, loss 0.0290" in page_of(
        run
    )


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("local", "tolerance 1.84"),
        ("global-exact", "largest error over a block's benchmark 1.84"),
        ("theirs", "its figure 1.84"),
    ],
)
def test_a_rules_figure_is_called_what_it_is(tmp_path, rule, words):
    run = make_run(tmp_path / "demo")
    file = next(run.glob("students/*/architecture.json"))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rule": rule}))
    assert f"Rule: {rule}, {words}" in page_of(run)


def test_the_chosen_option_of_every_slot_is_marked(tmp_path):
    text = page_of(make_run(tmp_path / "demo"))
    assert text.count('class="option chosen"') == 2 * len(BLOCKS)
    assert text.count('class="option') == 2 * len(BLOCKS) * 4


def test_whatever_stands_in_the_files_is_text(tmp_path):
    nasty = '<img src=x onerror="alert(1)">&'
    run = make_run(tmp_path / "demo", "student", name="plain")
    student = run / "students" / "plain"
    architecture = json.loads((student / "architecture.json").read_text())
    architecture["rule"] = nasty
    architecture["blocks"][nasty] = {nasty: nasty}
    (student / "architecture.json").write_text(json.dumps(architecture))
    values = metrics()
    values["protocol"] |= {nasty: nasty, "features": nasty}
    values["teacher"][nasty] = 1.0
    (student / "metrics.json").write_text(json.dumps(values))
    plan = json.loads((run / "plan.json").read_text())
    plan["left"], plan["reasons"] = [nasty], {nasty: nasty}
    (run / "plan.json").write_text(json.dumps(plan))
    (run / "settings.yaml").write_text(json.dumps({nasty: nasty}))
    log = {"stage": "supernet", "step": 0, "loss": 1.0, "blocks": {nasty: 1.0, "b": 2.0}}
    (run / "log.jsonl").write_text(json.dumps(log))
    text = page_of(run)
    assert "<img" not in text
    assert not [name for _, name, _ in Tags(text).attributes if name == "onerror"]


def test_a_folder_whose_name_is_no_utf8_does_not_spoil_the_page(tmp_path):
    run = make_run(tmp_path / "demo")
    file = run / "students" / "macs-0.5" / "metrics.json"
    content = json.loads(file.read_text())
    content["protocol"]["reference"] = os.fsdecode(b"photos-\xe9")
    file.write_text(json.dumps(content))
    assert r"photos-\udce9" in page_of(run)


def test_half_a_line_does_not_spoil_the_curves(tmp_path):
    run = make_run(tmp_path / "demo", "supernet")
    clean = page_of(run)
    with (run / "log.jsonl").open("a") as log:
        log.write('{"stage": "supernet", "st')
    assert page_of(run) == clean


def log_of(run, *stretches):
    """Write a log of trainings, each as (the step it begins after, the steps it logs, its loss)."""
    with (run / "log.jsonl").open("w") as log:
        for after, steps, loss in stretches:
            about = {"stage": "retrain", "student": "macs-0.5"}
            records = [{"after": after}, *({"step": step, "loss": loss} for step in steps)]
            log.writelines(f"{json.dumps(about | record)}\n" for record in records)


def steps_and_losses(run):
    return [(r["step"], r["loss"]) for r in read_run(run).retrain["macs-0.5"]]


def test_steps_that_were_lost_with_a_kill_are_not_in_the_curve(tmp_path):
    run = make_run(tmp_path / "demo")
    log_of(run, (0, [10, 20, 30], 9.0), (15, [20, 30, 40], 1.0))
    assert steps_and_losses(run) == [(10, 9.0), (20, 1.0), (30, 1.0), (40, 1.0)]


def test_a_training_begun_anew_has_a_curve_of_its_own(tmp_path):
    run = make_run(tmp_path / "demo")
    log_of(run, (0, [10, 20, 30, 40], 9.0), (0, [12, 24], 1.0))
    assert steps_and_losses(run) == [(12, 1.0), (24, 1.0)]


def test_a_student_chosen_from_an_earlier_score_table_is_not_drawn_on_this_one(tmp_path):
    run = make_run(tmp_path / "demo")
    drawn = scatter(read_run(run))
    file = run / "students" / "macs-0.5" / "architecture.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "scores": "another"}))
    assert "macs-0.5" in drawn
    assert "macs-0.5" not in scatter(read_run(run))


def test_a_student_shows_the_settings_it_was_retrained_with(tmp_path):
    run = make_run(tmp_path / "demo")
    made = {"format": 1, "settings": {"seed": 7, "retrain": {"steps": 1234}}}
    (run / "students" / "macs-0.5" / "student.json").write_text(json.dumps(made))
    text = page_of(run)
    assert "steps: 1234" in text
    assert "seed: 7" in text


@pytest.mark.parametrize(("whole", "told"), [(51, True), (50, False), (None, False)])
def test_a_student_whose_training_was_cut_short_is_called_a_trial(tmp_path, whole, told):
    run = make_run(tmp_path / "demo")
    made = {"format": 1, "settings": {"retrain": {"steps": 50}}, "whole_steps": whole}
    (run / "students" / "macs-0.5" / "student.json").write_text(json.dumps(made))
    text = page_of(run)
    trial = "A trial: max_steps cut its retraining short after 50 of 51 steps"
    assert (trial in text) == told
    assert text.find(trial) < text.index("<table")


def test_numbers_that_are_none_are_left_out_of_the_charts(tmp_path):
    run = make_run(tmp_path / "demo", "supernet")
    with (run / "log.jsonl").open("a") as log:
        log.write('{"stage": "supernet", "step": 300, "loss": NaN, "blocks": {"mid_block": NaN}}\n')
        log.write('{"stage": "supernet", "step": 302, "blocks": {"mid_block": Infinity}}\n')
    text = page_of(run)
    assert not re.search(r'(d|cx|cy|x|y)="[^"]*(nan|inf)', text)


def test_a_curve_of_one_point_is_a_dot(tmp_path):
    run = make_run(tmp_path / "demo", "plan")
    (run / "log.jsonl").write_text('{"stage": "supernet", "step": 20, "blocks": {"a": 0.5}}\n')
    assert re.search(
        r'<path class="line" d="M[\d.]+ [\d.]+h0" [^>]*stroke-linecap="round"', page_of(run)
    )


def test_writing_again_gives_the_same_page(tmp_path):
    run = make_run(tmp_path / "demo")
    assert page_of(run) == page_of(run)
    assert not list(run.glob("*.tmp"))


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("plan.json", "{broken", "plan.json: unreadable"),
        ("plan.json", "[1]", "plan.json: unreadable"),
        ("plan.json", '{"format": 99}', "format 99 is newer than this DiffNAS reads"),
        ("settings.yaml", "a: [", "settings.yaml: unreadable"),
        ("scores.safetensors", "nothing", "scores.safetensors: unreadable"),
    ],
)
def test_a_broken_file_is_named(tmp_path, file, content, words):
    run = make_run(tmp_path / "demo")
    (run / file).write_text(content)
    with pytest.raises(UserError, match=re.escape(words)):
        write_report(run)


def test_the_supernets_curve_is_of_the_last_commands_trunk(tmp_path):
    run = make_run(tmp_path / "demo", "plan")
    plan = json.loads((run / "plan.json").read_text())
    (run / "plan.json").write_text(json.dumps({**plan, "space": {"trunk": [6, 8]}}))
    record = {"time": 1.0, "stage": "supernet"}
    lines = [
        *({**record, "trunk": [6, 8], "step": step, "loss": 0.25} for step in (1, 2)),
        {**record, "trunk": [4, 8], "after": 0},
        *({**record, "trunk": [4, 8], "step": step, "loss": 7.0} for step in (1, 2)),
        {**record, "trunk": [6, 8], "after": 2},
        {**record, "trunk": [6, 8], "step": 3, "loss": 0.125},
    ]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [each["loss"] for each in read_run(run).supernet] == [0.25, 0.25, 0.125]


def test_the_supernets_curves_are_of_all_groups_of_blocks(tmp_path):
    run = make_run(tmp_path / "demo", "plan")
    record = {"time": 1.0, "stage": "supernet", "groups": 2}
    lines = [
        {**record, "group": 1, "after": 0},
        {**record, "group": 1, "step": 1, "loss": 1.0},
        {**record, "group": 2, "after": 0},
        *({**record, "group": 2, "step": step, "loss": 2.0} for step in (1, 2)),
        {**record, "group": 2, "after": 1},
        {**record, "group": 2, "step": 2, "loss": 3.0},
    ]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [each["loss"] for each in read_run(run).supernet] == [1.0, 2.0, 3.0]


def test_a_student_of_another_choice_than_the_present_one_is_not_shown(tmp_path):
    run = make_run(tmp_path)
    student = run / "students" / "macs-0.5"
    for edits, shown in ({}, True), ({"mid_block": {"kind": "skip"}}, False):
        (student / "student.json").write_text(json.dumps({"format": 1, "edits": edits}))
        (files,) = read_run(run).students
        assert files.architecture
        assert (bool(files.metrics), files.samples is not None) == (shown, shown)


def test_students_measured_in_different_ways_are_said_not_to_compare(tmp_path):
    run = make_run(tmp_path / "run")
    make_run(run, name="macs-0.25")
    assert "not measured in the same way" not in page_of(run)
    file = run / "students" / "macs-0.25" / "metrics.json"
    metrics = json.loads(file.read_text())
    metrics["protocol"]["reference"] = "other images"
    file.write_text(json.dumps(metrics))
    assert "were not measured in the same way (different: reference)" in page_of(run)
