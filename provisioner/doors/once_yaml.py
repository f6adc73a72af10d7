"""YAML in which no key stands twice: the second one would silently take the place of the first (F-37)."""

from typing import Any

import yaml

_MERGE = "tag:yaml.org,2002:merge"


class RepeatedKey(yaml.YAMLError):
    """line: where it stands again, as people count."""

    def __init__(self, line: int) -> None:
        super().__init__("a key stands twice")
        self.line = line


class OnceLoader(yaml.SafeLoader):
    """Raises RepeatedKey beside what a SafeLoader raises."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key, _ in node.value:
            name = self._said(key)
            if name in seen:
                raise RepeatedKey(key.start_mark.line + 1)
            seen.add(name)
        return super().construct_mapping(node, deep)

    def _said(self, key: yaml.Node) -> object:
        """What the key says, however it is written: 1 is 0x1. A key that is no scalar is itself, and refused later."""
        if not isinstance(key, yaml.ScalarNode):
            return key
        return key.value if key.tag == _MERGE else self.construct_object(key)
