"""Strict configuration: every key is known, every value has an origin.

A config class stands beside the class that it configures, is keyword-only and frozen, and documents each field in the
docstring under it; the JSON schema and ``danlu config show`` take their words from there.

Values come in layers, each over the one before: defaults, what a size dial derives, the recipe's file, the command
line. :func:`resolve` lays them over each other and remembers where each value came from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

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
        raise UsageError(f"cannot read the recipe: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise UsageError("the recipe is not UTF-8 text", where=str(path), advice="save it as UTF-8") from error
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        origins: dict[str, str] = {}
        values = _construct(loader, node, path, "", origins) if node is not None else {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error)
        raise UsageError(f"not valid YAML: {problem}", where=where) from error
    finally:
        loader.dispose()
    if not isinstance(values, dict):
        raise UsageError("a recipe is a mapping of keys to values", where=str(path))
    return Layer(values, origins)


def read_overrides(words: Sequence[str]) -> Layer:
    """Read ``key.sub=value`` words from the command line; values are YAML (``3``, ``1e-3``, ``[a, b]``, ``null``).

    Raises:
        UsageError: A word has no ``=``, or its value is not YAML.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise UsageError(f"not understood: {word!r}", advice="override a value as key=value, e.g. train.epochs=3")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UsageError(f"the value of {key} is not valid YAML: {text!r}", where="command line") from error
        *parents, last = key.split(".")
        section = values
        for parent in parents:
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise UsageError(f"{key} is given both as a value and as a section", where="command line")
        section[last] = value
        origins[key] = "command line"
    return Layer(values, origins)


def resolve(schema: type[C], layers: Sequence[Layer]) -> Resolved[C]:
    """Lay the layers over each other and validate.

    Args:
        schema: The config class.
        layers: Lowest first; defaults lie below all of them.

    Raises:
        UsageError: An unknown key (the nearest is suggested), a missing one, or a value of the wrong type; each with
            the line where it stands.
    """
    values: dict[str, Any] = {}
    given: dict[str, str] = {}
    for layer in layers:
        values = _over(values, layer.values)
        given.update(layer.origins)
    try:
        config = schema.model_validate(values)
    except ValidationError as error:
        raise _explained(schema, given, error) from error
    return Resolved(config, {key: _origin(key, given) for key, _ in leaves(config.plain())})


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of nested mappings with its dotted key, in order."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _construct(loader: yaml.SafeLoader, node: yaml.Node, path: Path, prefix: str, origins: dict[str, str]) -> Any:
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node, deep=True)
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = str(loader.construct_object(key_node, deep=True))
        line = f"{path}:{key_node.start_mark.line + 1}"
        if key in mapping:
            raise UsageError(f"{prefix}{key} is given twice", where=line, advice="keep one of the two")
        if not isinstance(value_node, yaml.MappingNode):
            origins[prefix + key] = line
        mapping[key] = _construct(loader, value_node, path, f"{prefix}{key}.", origins)
    return mapping


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
    below = next((origin for other, origin in given.items() if other.startswith(f"{key}.")), "default")
    return given.get(key, below) if key in given or below != "default" else _origin(key, given)


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
    (what, where, advice), *rest = problems
    also = "".join(f"; also {other} ({place})" for other, place, _ in rest[:3])
    return UsageError(what + also, where=where, advice=advice)


def _known_keys(schema: type[Config], path: Sequence[str]) -> list[str]:
    """The keys of the section at a path."""
    for part in path:
        annotation = schema.model_fields[part].annotation
        sections = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
        schema = next(kind for kind in sections if issubclass(kind, Config))
    return [field.alias or name for name, field in schema.model_fields.items()]
