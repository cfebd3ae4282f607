"""YAML as people mean it: nothing twice, and whole numbers in tens alone."""

import json
import re
from collections.abc import Hashable
from typing import Any

import yaml


def read(text: str) -> Any:
    """The value that a YAML text holds.

    Raises:
        yaml.YAMLError: it is none, says something twice, holds itself or is nested too deeply.
    """
    try:
        value = yaml.load(text, _Loader)
        json.dumps(value, default=str, skipkeys=True)  # refuses what holds itself
        return value
    except (ValueError, RecursionError) as error:
        raise yaml.YAMLError(str(error)) from None


class _Loader(yaml.SafeLoader):
    """Where YAML 1.1 has surprises, as people mean it.

    In YAML 010 is 8, 1:30 is 90 and 2021-13-45 an error, and the last of two sections of one name
    is all there is.
    """

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """Refuse what is there twice."""
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for number, key in enumerate(keys):
            if key.value in [before.value for before in keys[:number]]:
                raise yaml.constructor.ConstructorError(
                    problem=f"{key.value} is there twice", problem_mark=key.start_mark
                )
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [each for each in resolvers if not each[0].endswith((":int", ":timestamp"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_WHOLE = re.compile(r"[-+]?\d+\Z")
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _WHOLE, list("-+0123456789"))
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))
