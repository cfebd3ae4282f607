"""The largest student of a space, and what a supernet holds beside its weights."""

from collections.abc import Collection

from diffnas.architecture import Architecture, BlockSpace, Option, Space


def widest(space: Space) -> Architecture:
    """The teacher's options but for ResNet layers that may be wider: what a supernet holds most."""
    return Architecture(
        {
            block.name: {
                slot.path: max(
                    (option for option in slot.options if not _apart(option)),
                    key=lambda option: option.cost.params,
                ).name
                for slot in block.slots
            }
            for block in space.blocks
        }
    )


def options_of(block: BlockSpace) -> list[Option]:
    """Of all its slots."""
    return [option for slot in block.slots for option in slot.options]


def extra_bytes(space: Space, names: Collection[str]) -> int:
    """Weights of these blocks' supernets beside those that a slot's options share."""
    blocks = [block for block in space.blocks if block.name in names]
    options = [option for block in blocks for option in options_of(block)]
    return 4 * sum(option.cost.params for option in options if _apart(option))


def _apart(option: Option) -> bool:
    """Whether it has weights of its own: another kernel, a low rank."""
    edit = option.edit or {}
    return "rank" in edit or edit.get("kernel", 3) != 3
