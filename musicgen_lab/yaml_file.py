"""`load_yaml`: YAML as people mean it."""

from __future__ import annotations

import re
from typing import Any


def load_yaml(text: str) -> Any:
    """Read YAML with the numbers of YAML 1.2, and refuse a key that stands twice.

    To YAML 1.1, which PyYAML reads, 1:4 is the number 64 and 1e-3 a text, and of two equal keys the
    last one counts.

    Raises
    ------
    yaml.YAMLError
        When it is not YAML, or a key stands twice.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen: set[Any] = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key.value!r} stands twice", key.start_mark
                    )
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    numbers = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in numbers]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver(
        numbers[0], re.compile(r"[-+]?(0|[1-9][0-9]*)$"), [*"-+0123456789"]
    )
    Loader.add_implicit_resolver(
        numbers[1],
        re.compile(
            r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?$|[-+]?\.inf$|\.nan$"
        ),
        [*"-+.0123456789"],
    )
    return yaml.load(text, Loader)
