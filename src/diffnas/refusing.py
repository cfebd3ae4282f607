"""What diffusers raises over a pipeline's contents, as one line for whoever gave the pipeline."""

from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError

from diffnas.errors import UserError, is_out_of_memory


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Turn whatever a pipeline's contents make diffusers raise into a UserError about them."""
    try:
        yield
    except (
        AttributeError,
        ImportError,
        KeyError,
        OSError,
        RuntimeError,
        SafetensorError,
        TypeError,
        ValueError,
    ) as error:
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"{what}: {first_sentence(error)}; copy or save the pipeline again"
        ) from error


def first_sentence(error: BaseException) -> str:
    """The first sentence of an error's first line, or its kind where it says nothing."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].split(". ")[0].rstrip(".:")
