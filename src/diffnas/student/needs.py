"""What a block of an edited UNet needs of the entries of a stock config, and such configs.

An entry is named as in the config, with the place in its list behind it: ``layers_per_block.1``.
Some are of more than one block: a level's number of layers is that of its blocks down and up, and
the middle has as deep a transformer as the first one of the last level.
"""

import re
from collections.abc import Mapping
from typing import Any

Edits = Mapping[str, Mapping[str, Any]]
Needs = dict[str, Any]

SKIP = {"kind": "skip"}
DROP = {"kind": "drop"}

LAYERS = "layers_per_block"
DEPTHS = {"down": "transformer_layers_per_block", "up": "reverse_transformer_layers_per_block"}
"""How many layers transformers have."""

_WITHOUT_ATTENTION = {
    f"{kind}{side}Block2D": f"{side}Block2D"
    for kind in ("Attn", "CrossAttn")
    for side in ("Down", "Up")
}


def block_names(config: Mapping[str, Any]) -> list[str]:
    """The blocks of a UNet of that config, by their paths."""
    down, up = ([f"{s}_blocks.{i}" for i in range(_levels(config))] for s in ("down", "up"))
    return [*down, *([] if config["mid_block_type"] is None else ["mid_block"]), *up]


def needs(config: Mapping[str, Any], block: str, edits: Edits) -> Needs | None:
    """The entries that a block with those edits needs; None if no entries say it.

    ``edits``: by their paths inside the block; none stand for the block as it is.
    """
    if block == "mid_block":
        return _of_middle(config, edits)
    side, _, place = block.partition("_blocks.")
    return _of_level(config, side, int(place), edits)


def with_needs(config: Mapping[str, Any], needed: Needs) -> dict[str, Any]:
    """The config with those entries, which are those of all its blocks."""
    made = dict(config)
    levels = range(_levels(config))
    for side in ("down", "up"):
        made[f"{side}_block_types"] = tuple(needed[f"{side}_block_types.{i}"] for i in levels)
    for name in ("mid_block_type", "add_attention"):
        if name in needed:
            made[name] = needed[name]
    if LAYERS in needed:
        made[LAYERS] = needed[LAYERS]
    elif (layers := [needed[f"{LAYERS}.{level}"] for level in levels]) != _layers(config):
        made[LAYERS] = layers
    own = {name: _depth(config, name) for name in needed if name.startswith(tuple(DEPTHS.values()))}
    if any(needed[name] != depth for name, depth in own.items()):
        for side, entry in DEPTHS.items():
            made[entry] = [_depths(config, needed, side, place) for place in levels]
    return made


def name_in_stock(weight: str, edits: Edits) -> str:
    """A weight's name in the stock model; layers behind a dropped one move up."""
    found = re.fullmatch(r"(up_blocks\.\d+)\.(resnets|attentions)\.(\d+)(\..*)", weight)
    if found is None:
        return weight
    block, kind, place, rest = found.groups()
    before = sum(edits.get(f"{block}.resnets.{j}") == DROP for j in range(int(place)))
    return f"{block}.{kind}.{int(place) - before}{rest}"


def _of_level(config: Mapping[str, Any], side: str, place: int, edits: Edits) -> Needs | None:
    """Its type, how many layers its level has, and how deep its transformers are.

    The last layers of a block on the way down can go, and on the way up as many after the first.
    What stays there then reads the skips that it read before, since a left-out layer hands on what
    the one before it gave.
    """
    up = side == "up"
    level = _levels(config) - 1 - place if up else place
    layers = _layers(config)[level]
    count = layers + up
    gone = [j for j in range(count) if edits.get(f"resnets.{j}") == (DROP if up else SKIP)]
    first = 1 if up else count - len(gone)
    if gone != list(range(first, first + len(gone))) or len(gone) >= layers:
        return None
    kind = config[f"{side}_block_types"][place]
    plain = _WITHOUT_ATTENTION.get(kind.removeprefix("UNetRes"))
    attentions = range(count if plain else 0)
    if set(edits) - {f"resnets.{j}" for j in gone} - {f"attentions.{j}" for j in attentions}:
        return None
    own = [_depth(config, f"{DEPTHS[side]}.{place}.{j}") for j in attentions]
    depths = [_left(depth, edits.get(f"attentions.{j}")) for j, depth in enumerate(own)]
    kept = [depths[j] for j in attentions if j not in gone]
    shared = LAYERS if _is_plain(config) else f"{LAYERS}.{level}"
    found: Needs = {f"{side}_block_types.{place}": kind, shared: layers - len(gone)}
    if plain and not any(depths) and None not in depths and _resamples_alike(config, side, place):
        return {**found, f"{side}_block_types.{place}": plain}
    if any(depths[j] != 0 for j in gone if plain) or not all(kept):
        return None
    if not kind.startswith("Cross"):
        return found
    return found | {f"{DEPTHS[side]}.{place}.{j}": depth for j, depth in enumerate(kept)}


def _left(depth: int, edit: Mapping[str, Any] | None) -> int | None:
    """How many layers an attention of that depth keeps; None if a config cannot say its edit."""
    if edit is None:
        return depth
    if edit == SKIP:
        return 0
    alone = edit["kind"] == "transformer" and set(edit) == {"kind", "layers"}
    return len(edit["layers"]) if alone else None


def _of_middle(config: Mapping[str, Any], edits: Edits) -> Needs | None:
    """Its type, and how deep its transformer is, or whether it has attention."""
    kind = config["mid_block_type"]
    crossing = kind == "UNetMidBlock2DCrossAttn"
    attention = {"attentions.0"} if crossing or config.get("add_attention") else set()
    resnets = {"resnets.0", "resnets.1"} if crossing or _is_plain(config) else {"resnets.0"}
    depth = f"{DEPTHS['down']}.{_levels(config) - 1}.0"
    left = _left(_depth(config, depth) if crossing else 1, edits.get("attentions.0"))
    skipped = {path for path, edit in edits.items() if edit == SKIP}
    # A skipped layer still divides by the scale factor; one that is not there does not.
    if skipped and config["mid_block_scale_factor"] != 1:
        return None
    own: Needs = {"add_attention": bool(attention)} if _is_plain(config) else {}
    if left and set(edits) <= attention:
        return {"mid_block_type": kind, **own, **({depth: left} if crossing else {})}
    if skipped != set(edits):
        return None
    if skipped == attention | resnets:
        return {**own, "mid_block_type": None}
    if crossing and skipped == {"attentions.0", "resnets.1"}:
        return {"mid_block_type": "UNetMidBlock2D"}
    if _is_plain(config) and skipped == attention:
        return {"mid_block_type": kind, "add_attention": False}
    return None


def _is_plain(config: Mapping[str, Any]) -> bool:
    """Whether it is a ``UNet2DModel``'s: one number of layers, a middle of two ResNet layers."""
    return "add_attention" in config


def _levels(config: Mapping[str, Any]) -> int:
    return len(config["block_out_channels"])


def _layers(config: Mapping[str, Any]) -> list[int]:
    """Of each level, on the way down; on the way up there is one more."""
    layers = config[LAYERS]
    return [layers] * _levels(config) if isinstance(layers, int) else list(layers)


def _depth(config: Mapping[str, Any], entry: str) -> int:
    """Of a transformer as it is, by its entry; one layer where configs do not tell."""
    name, place, layer = entry.split(".")
    given = config.get(name)
    if given is None and name == DEPTHS["up"]:
        given, place = config.get(DEPTHS["down"], 1), str(_levels(config) - 1 - int(place))
    for index in (place, layer):
        if isinstance(given, list | tuple):
            given = given[int(index)]
    return int(given or 1)


def _depths(config: Mapping[str, Any], needed: Needs, side: str, place: int) -> Any:
    """Of a block's transformers: one number where they are alike, else a list."""
    names = (f"{DEPTHS[side]}.{place}.{j}" for j in range(max(_layers(config)) + 1))
    found = [needed[name] for name in names if name in needed]
    if not found:
        return _depth(config, f"{DEPTHS[side]}.{place}.0")
    return found if len(set(found)) > 1 else found[0]


def _resamples_alike(config: Mapping[str, Any], side: str, place: int) -> bool:
    """Whether a block without attention does: by convolution only; the last does not resample."""
    resampling = {"down": "downsample_type", "up": "upsample_type"}[side]
    return config.get(resampling) in ("conv", None) or place == _levels(config) - 1
