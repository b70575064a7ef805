"""Read `xp.cfg`, the configuration in a checkpoint of audiocraft's: YAML as OmegaConf writes it."""

from __future__ import annotations

import re
from typing import Any

import yaml  # type: ignore[import-untyped]

TEXT_MAX_CHARACTERS = 500_000  # the released ones have some 12,000
VALUES_MAX = 20_000  # aliases included as often as they stand for something
DEPTH_MAX = 30
SECTIONS = (
    "codebooks_pattern", "compression_model", "conditioners", "dataset", "encodec", "fuser",
    "interleave_stereo_codebooks", "lm_model", "rvq", "seanet", "transformer_lm",
)  # fmt: skip
"""What a converter reads; the rest is how the model was trained."""

SEGMENT = "segment_duration"
"""The only value of the section `dataset` that is read: the seconds of a training example."""

_REFERENCE = re.compile(r"\$\{([^${}]*)\}")


def read_xp_config(text: Any) -> dict[str, Any]:
    """Return the sections of a configuration that a converter reads, with references resolved.

    Parameters
    ----------
    text : str

    Raises
    ------
    ValueError
        When it is not YAML of a mapping, is larger than any configuration, or refers to something
        that is not in it.
    """
    if not isinstance(text, str):
        raise ValueError(f"xp.cfg is a {type(text).__name__}, not text")
    if len(text) > TEXT_MAX_CHARACTERS:
        raise ValueError(f"xp.cfg has {len(text):,} characters, more than {TEXT_MAX_CHARACTERS:,}")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if _count_values(node, {}, ()) > VALUES_MAX:
            raise ValueError(f"xp.cfg stands for more than {VALUES_MAX:,} values")
        config = loader.construct_document(node)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"xp.cfg is not YAML ({' '.join(str(error).split())[:120]})") from None
    if not isinstance(config, dict):
        raise ValueError("xp.cfg is no mapping")
    references = _References(config)
    dataset = config.get("dataset")  # the rest of which may refer to what is not in it
    config["dataset"] = {SEGMENT: dataset.get(SEGMENT) if isinstance(dataset, dict) else None}
    return {name: references.resolve(config[name]) for name in SECTIONS if name in config}


def _count_values(node: Any, known: dict[int, int], above: tuple[int, ...]) -> int:
    """Count the values of a YAML node, those behind aliases as often as they are referred to."""
    if id(node) in above or len(above) > DEPTH_MAX:
        raise ValueError(f"xp.cfg is nested in itself, or more than {DEPTH_MAX} deep")
    if id(node) not in known:
        below = (*above, id(node))
        children: list[Any] = []
        if isinstance(node, yaml.MappingNode):
            children = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        known[id(node)] = 1 + sum(_count_values(child, known, below) for child in children)
    return known[id(node)]


class _References:
    """Replaces references such as "${encodec.causal}" by what they name."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._values = 0

    def resolve(self, value: Any, depth: int = 0) -> Any:
        """Return a value without references in it."""
        self._values += 1
        if depth > DEPTH_MAX or self._values > VALUES_MAX:
            raise ValueError("xp.cfg has references in a circle, or to more than it holds")
        if isinstance(value, dict):
            return {key: self.resolve(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list):
            return [self.resolve(item, depth + 1) for item in value]
        if not isinstance(value, str) or "${" not in value:
            return value
        reference = _REFERENCE.fullmatch(value)
        if reference is None:
            raise ValueError(f"xp.cfg has {value[:80]!r}, which is no reference to one value")
        node: Any = self._config
        for key in reference[1].split("."):
            if not isinstance(node, dict) or key not in node:
                raise ValueError(f"xp.cfg refers to {value[:80]!r}, which it does not have")
            node = node[key]
        return self.resolve(node, depth + 1)
