"""Strict configuration: every key is known, every value has an origin.

A config class stands beside the class that it configures, is keyword-only and frozen, and documents each field in the
docstring under it; the JSON schema and ``danlu config show`` take their words from there.

Values come in layers, each over the one before: defaults, what a size dial derives, the recipe's file, the command
line. :func:`resolve` lays them over each other and remembers where each value came from.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from danlu.core.errors import UsageError, nearest

__all__ = ["Config", "Layer", "Resolved", "leaves", "read_overrides", "read_yaml", "resolve"]

C = TypeVar("C", bound="Config")


class Config(BaseModel):
    """Base of every config: keyword-only, frozen, unknown keys forbidden, every number finite."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        serialize_by_alias=True,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse ``epochs: yes``, which pydantic would take for 1."""
        if isinstance(value, bool) and info.field_name in cls.model_fields:
            kinds = _kinds(cls.model_fields[info.field_name].annotation)
            if bool not in kinds and (int in kinds or float in kinds):
                raise ValueError("a number is due, not yes or no")
        return value

    def plain(self) -> dict[str, Any]:
        """The config as plain JSON values, every default filled in."""
        return self.model_dump(mode="json")


@dataclass(frozen=True)
class Layer:
    """Some values and where each of them stands.

    Attributes:
        values: Nested mappings.
        origins: dotted key -> ``"recipe.yaml:12"``, ``"command line"``, ``"derived from model.size"``.
    """

    values: Mapping[str, Any]
    origins: Mapping[str, str]


@dataclass(frozen=True)
class Resolved(Generic[C]):
    """A config and the origin of every value in it.

    Attributes:
        config: The validated config.
        origins: dotted key -> origin; ``"default"`` where no layer gave it.
    """

    config: C
    origins: Mapping[str, str]


def read_yaml(path: Path) -> Layer:
    """Read a YAML file, remembering the line of every key.

    Raises:
        UsageError: No such file, not YAML, not a mapping, or one key given twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        advice = "give the path of a recipe, a YAML file"
        raise UsageError(f"cannot read the recipe: {error.strerror}", where=str(path), advice=advice) from error
    except UnicodeDecodeError as error:
        raise UsageError("the recipe is not UTF-8 text", where=str(path), advice="save it as UTF-8") from error
    origins: dict[str, str] = {}
    values = _read(text, lambda line: f"{path}:{line}" if line else str(path), "", origins)
    if not isinstance(values, dict | None):
        raise UsageError("a recipe is a mapping of keys to values", where=str(path))
    return Layer(values or {}, origins)


def read_overrides(words: Sequence[str]) -> Layer:
    """Read ``key.sub=value`` words from the command line, each over those before it.

    Values are YAML (``3``, ``1e-3``, ``[a, b]``, ``null``).

    Raises:
        UsageError: A word has no ``=``, or its value is not YAML.
    """
    laid = Layer({}, {})
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            advice = "override a value as key=value, e.g. train.epochs=3"
            raise UsageError(f"not understood: {word!r}", where="command line", advice=advice)
        origins: dict[str, str] = {}
        value = _read(text, _of_word(word), f"{key}.", origins)
        if not isinstance(value, dict):
            origins[key] = ""
        for part in reversed(key.split(".")):
            value = {part: value}
        laid = _lay(laid, Layer(value, dict.fromkeys(origins, "command line")))
    return laid


def resolve(schema: type[C], layers: Sequence[Layer]) -> Resolved[C]:
    """Lay the layers over each other and validate.

    Args:
        schema: The config class.
        layers: Lowest first; defaults lie below all of them.

    Raises:
        UsageError: An unknown key (the nearest is suggested), a missing one, or a value of the wrong type; each with
            the line where it stands.
    """
    laid = functools.reduce(_lay, layers, Layer({}, {}))
    try:
        config = schema.model_validate(laid.values)
    except ValidationError as error:
        raise _explained(schema, laid.origins, error) from error
    return Resolved(config, {key: _origin(key, laid.origins) for key, _ in leaves(config.plain())})


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of nested mappings with its dotted key, in order."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _of_word(word: str) -> Callable[[int | None], str]:
    return lambda _: f"command line: {word}"


def _read(text: str, place: Callable[[int | None], str], prefix: str, origins: dict[str, str]) -> Any:
    """The value of a YAML text; the place of every key in it goes into origins."""
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        return None if node is None else _construct(loader, node, place, prefix, origins)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        raise UsageError(f"not valid YAML: {problem}", where=place(mark.line + 1 if mark else None)) from error
    except RecursionError as error:
        raise UsageError("not valid YAML: nested too deeply", where=place(None)) from error


def _construct(
    loader: yaml.SafeLoader, node: yaml.Node, place: Callable[[int | None], str], prefix: str, origins: dict[str, str]
) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_construct(loader, item, place, f"{prefix}{i}.", origins) for i, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        try:
            return loader.construct_object(node)
        except ValueError as error:  # 2024-13-45 looks like a date to YAML
            raise yaml.MarkedYAMLError(problem=f"{node.value}: {error}", problem_mark=node.start_mark) from error
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(problem="a key is one word", problem_mark=key_node.start_mark)
        key = key_node.value  # as it is written: to YAML 1.1 a key `no` would be False
        where = place(key_node.start_mark.line + 1)
        if key in mapping:
            raise UsageError(f"{prefix}{key} is given twice", where=where, advice="keep one of the two")
        if not isinstance(value_node, yaml.MappingNode):
            origins[prefix + key] = where
        mapping[key] = _construct(loader, value_node, place, f"{prefix}{key}.", origins)
    return mapping


def _lay(below: Layer, above: Layer) -> Layer:
    """One layer over another; where a value covers a section, or a section a value, the covered origins go too."""

    def covered(key: str) -> bool:
        return any(key.startswith(f"{other}.") or other.startswith(f"{key}.") for other in above.origins)

    kept = {key: origin for key, origin in below.origins.items() if not covered(key)}
    return Layer(_over(below.values, above.values), {**kept, **above.origins})


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _over(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return merged


def _origin(key: str, given: Mapping[str, str]) -> str:
    """The origin of a value: its own, or that of a section above it that was given as one value."""
    while key and key not in given:
        key = key.rpartition(".")[0]
    return given.get(key, "default")


def _place(key: str, given: Mapping[str, str]) -> str:
    """Where to look for a wrong key: its own origin, or that of the first thing in the section that it names."""
    below = (origin for other, origin in given.items() if other.startswith(f"{key}."))
    return given.get(key) or next(below, None) or _origin(key, given)


def _explained(schema: type[Config], given: Mapping[str, str], error: ValidationError) -> UsageError:
    problems = []
    for item in error.errors():
        path = [str(part) for part in item["loc"]]
        key = ".".join(path)
        where, advice = _place(key, given), None
        if item["type"] == "extra_forbidden":
            what, advice = f"unknown key {key!r}", nearest(path[-1], _known_keys(schema, path[:-1]))
        elif item["type"] == "missing":
            what, where, advice = f"{key} is missing", ".".join(path[:-1]) or "the recipe", f"add {key}"
        else:
            got = "" if isinstance(item["input"], Mapping) else f" (got {item['input']!r})"
            what = f"{key or 'the recipe'}: {item['msg'].removeprefix('Value error, ')}{got}"
        problems.append((what, where, advice))
    # A misspelt key also leaves the right one missing: the misspelling is what the user can mend.
    problems.sort(key=lambda problem: not problem[0].startswith("unknown key"))
    (what, where, advice), *rest = problems
    also = "".join(f"; also {other} ({place})" for other, place, _ in rest[:3])
    return UsageError(what + also, where=where, advice=advice)


def _known_keys(schema: type[Config], path: Sequence[str]) -> list[str]:
    """The keys of the section at a path; a part that is no key is a place in a list or the branch of a union."""
    for part in path:
        fields = {field.alias or name: field for name, field in schema.model_fields.items()}
        if part in fields:
            kinds = _kinds(fields[part].annotation)
            schema = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Config)), schema)
    return [field.alias or name for name, field in schema.model_fields.items()]


def _kinds(annotation: Any) -> list[Any]:
    """A type and every type inside it: of ``list[int] | None``, itself, ``list[int]``, ``int`` and ``None``."""
    return [annotation, *(kind for inner in get_args(annotation) for kind in _kinds(inner))]
