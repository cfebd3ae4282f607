import json

from diffnas.architecture import (
    FORMAT,
    Architecture,
    BlockSpace,
    Cost,
    Option,
    SlotSpace,
    Space,
    space_from_json,
    space_to_json,
    subnet_at,
)

SKIP = {"kind": "skip"}
SLOT_A = SlotSpace(
    "a", "resnet", (Option("teacher", None, Cost(10, 100, 90)), Option("skip", SKIP, Cost()))
)
SLOT_B = SlotSpace(
    "b.0",
    "attention",
    (
        Option("teacher", None, Cost(8, 50, 20)),
        Option("heads=1", {"kind": "attention", "heads": 1}, Cost(4, 25, 10)),
        Option("skip", SKIP, Cost()),
    ),
)
BLOCK = BlockSpace("mid", Cost(30, 200, 160), (SLOT_A, SLOT_B))
SPACE = Space(Cost(100, 1000, 900), (BLOCK,), Cost(100, 1000, 900))


def test_the_teachers_and_the_smallest_subnet():
    assert BLOCK.size == 6
    assert BLOCK.teacher == {"a": "teacher", "b.0": "teacher"}
    assert BLOCK.smallest == {"a": "skip", "b.0": "skip"}


def test_where_all_options_are_dearer_the_teachers_own_is_the_smallest():
    wider = (Option("teacher", None, Cost(8, 50, 20)), Option("width=96", {}, Cost(12, 75, 30)))
    assert BlockSpace("x", Cost(8, 50, 20), (SlotSpace("a", "resnet", wider),)).smallest == {
        "a": "teacher"
    }


def test_a_block_without_slots_has_one_subnet():
    assert BlockSpace("x", Cost(), ()).size == 1


def test_a_very_large_block_is_counted_exactly():
    assert BlockSpace("x", Cost(), (SLOT_B,) * 50).size == 3**50


def test_costs_add_up_over_slots_and_blocks():
    subnet = {"a": "skip", "b.0": "heads=1"}
    assert BLOCK.cost_of(BLOCK.teacher) == BLOCK.cost
    assert BLOCK.cost_of(subnet) == Cost(30 - 10 - 4, 200 - 100 - 25, 160 - 90 - 10)
    assert SPACE.cost_of(Architecture({"mid": subnet})) == Cost(86, 875, 800)


def test_edits_name_only_what_is_changed_by_its_full_path():
    architecture = Architecture({"mid": {"a": "teacher", "b.0": "skip"}})
    assert architecture.edits(SPACE) == {"mid.b.0": SKIP}


def test_indices_name_a_subnet():
    assert subnet_at(BLOCK, [1, 2]) == BLOCK.smallest


def test_a_space_survives_json():
    values = json.loads(json.dumps(space_to_json(SPACE)))
    assert values["format"] == FORMAT
    assert space_from_json(values) == SPACE
