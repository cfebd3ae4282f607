"""What a teacher's fingerprint depends on, and what it does not."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.configuration_utils import ConfigMixin, register_to_config

from diffnas.families.loading import load_teacher
from diffnas.fingerprint import of_data, of_teacher
from tests.engine import tiny_data, tiny_teacher
from tests.models import tiny_text_encoder, tiny_tokenizer
from tests.models.parts import tiny_qwen, tiny_t5
from tests.painter import painter


class Scheduler(ConfigMixin):
    """As diffusers' are."""

    config_name = "scheduler_config.json"

    @register_to_config
    def __init__(self, steps=1000, sizes=(1, 2)):
        pass


class LaterScheduler(ConfigMixin):
    """The same one in a later diffusers: with one more argument."""

    config_name = "scheduler_config.json"

    @register_to_config
    def __init__(self, steps=1000, sizes=(1, 2), sharp=False):
        pass


LaterScheduler.__name__ = Scheduler.__name__


def with_scheduler(scheduler):
    return of_teacher(replace(tiny_teacher(), pipeline=SimpleNamespace(scheduler=scheduler)))


def test_an_argument_that_a_later_diffusers_adds_is_no_change():
    assert with_scheduler(LaterScheduler()) == with_scheduler(Scheduler())
    assert with_scheduler(LaterScheduler(steps=5)) == with_scheduler(Scheduler(steps=5))
    assert with_scheduler(LaterScheduler(sharp=True)) != with_scheduler(Scheduler())


def test_a_default_written_out_as_json_has_it_is_no_change():
    assert with_scheduler(Scheduler(sizes=[1, 2])) == with_scheduler(Scheduler())


def test_schedulers_of_two_classes_differ_where_both_have_their_defaults():
    assert with_scheduler(DDIMScheduler()) != with_scheduler(DDPMScheduler())


def test_an_entry_that_only_other_samplers_read_counts():
    plain = DDPMScheduler()
    karras = DDPMScheduler.from_config({**plain.config, "use_karras_sigmas": True})
    assert with_scheduler(karras) != with_scheduler(plain)


def test_data_that_tell_a_model_something_else_differ():
    plain = tiny_data(4)
    kinds = [
        plain,
        replace(plain, captions=("a", "b")),
        replace(plain, captions=("a", "c")),
        replace(plain, condition_dropout=0.1),
        replace(plain, buckets=(plain,)),
        replace(plain, buckets=(replace(plain, seen=plain.seen[:1]),)),
    ]
    assert len({of_data(data) for data in kinds}) == len(kinds)


def test_a_text_encoder_with_other_weights_is_another_teacher():
    def with_encoder(seed):
        teacher = painter()
        teacher.pipeline.components["text_encoder"] = encoder = tiny_text_encoder()
        next(encoder.parameters()).data.add_(seed)
        return of_teacher(teacher)

    assert with_encoder(0) == with_encoder(0) != with_encoder(1)


def of_words(tokenizer):
    teacher = painter()
    teacher.pipeline.components["tokenizer"] = tokenizer
    return of_teacher(teacher)


def test_a_tokenizer_with_another_word_is_another_teacher():
    plain, other = tiny_tokenizer(), tiny_tokenizer()
    other.add_tokens(["red"])
    assert of_words(plain) != of_words(other)


def test_a_tokenizer_that_asks_in_another_way_is_another_teacher():
    plain, other = tiny_qwen()[1], tiny_qwen()[1]
    other.chat_template = "{{ messages[0]['content'] }}"
    assert of_words(plain) != of_words(other)


@pytest.mark.parametrize("make", [tiny_tokenizer, lambda: tiny_t5()[1], lambda: tiny_qwen()[1]])
def test_a_tokenizer_that_was_used_or_saved_is_the_same(make, tmp_path):
    tokenizer = make()
    unused = of_words(tokenizer)
    tokenizer(["a b"], padding="max_length", max_length=9, truncation=True)
    tokenizer.save_pretrained(tmp_path)
    assert of_words(tokenizer) == of_words(type(tokenizer).from_pretrained(tmp_path)) == unused


def test_saving_and_loading_changes_nothing(tmp_path):
    teacher = tiny_teacher()
    teacher.pipeline.save_pretrained(tmp_path)
    assert of_teacher(load_teacher(str(tmp_path))) == of_teacher(teacher)
