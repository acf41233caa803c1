"""Strict configuration: every key known, every value with an origin."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, field_validator

from danlu.core.config import Config, Layer, Resolved, leaves, read_overrides, read_yaml, resolve
from danlu.core.errors import UsageError


class Point(Config):
    """A point."""

    x: int = 0
    """Across."""
    y: int = 0
    """Up."""


class Split(Config):
    """A split."""

    valid: float = 0.1
    """Share of the validation split."""
    test: float = 0.1
    """Share of the test split."""


class Data(Config):
    """Data."""

    source: str
    """Where from."""
    split: Split = Split()
    """How split."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Which columns."""


class Train(Config):
    """Training."""

    epochs: int = 6
    """How often."""
    learning_rate: float = 1e-3
    """How fast."""
    amp: bool = False
    """Half precision."""
    from_: Literal["scratch", "best"] = Field("scratch", alias="from")
    """Where it starts."""
    clip: float | None = 1.0
    """Norm."""
    points: tuple[Point, ...] = ()
    """Points."""
    point: Point | None = None
    """A point."""
    path: Path | None = None
    """A path."""

    @field_validator("epochs")
    @classmethod
    def _some(cls, value: int) -> int:
        if value < 1:
            raise ValueError("at least one epoch")
        return value


class Toy(Config):
    """A recipe."""

    name: str
    """Its name."""
    data: Data
    """Its data."""
    train: Train = Train()
    """Its training."""


RECIPE = """\
name: toy
data:
  source: here
  split: {valid: 0.2}
train:

  epochs: 3   # few
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def read(tmp_path: Path, text: str) -> Layer:
    path = tmp_path / "r.yaml"
    path.write_text(text, encoding="utf-8")
    return read_yaml(path)


def over(recipe: Path, *words: str) -> Resolved[Toy]:
    return resolve(Toy, [read_yaml(recipe), read_overrides(words)])


def error_of(recipe: Path, *words: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        over(recipe, *words)
    return caught.value


# values and origins


def test_every_value_has_an_origin(recipe: Path) -> None:
    resolved = over(recipe, "train.amp=true", "data.split.test=0.3")
    assert resolved.config.plain() == {
        "name": "toy",
        "data": {"source": "here", "split": {"valid": 0.2, "test": 0.3}, "columns": {}},
        "train": {
            "epochs": 3,
            "learning_rate": 0.001,
            "amp": True,
            "from": "scratch",
            "clip": 1.0,
            "points": [],
            "point": None,
            "path": None,
        },
    }
    assert resolved.origins == {
        "name": f"{recipe}:1",
        "data.source": f"{recipe}:3",
        "data.split.valid": f"{recipe}:4",
        "data.split.test": "command line",
        "data.columns": "default",
        "train.epochs": f"{recipe}:7",
        "train.learning_rate": "default",
        "train.amp": "command line",
        "train.from": "default",
        "train.clip": "default",
        "train.points": "default",
        "train.point": "default",
        "train.path": "default",
    }


def test_layers_lie_over_each_other_in_order() -> None:
    base = {"name": "a", "data": {"source": "s"}}
    layers = [
        Layer(base, {"name": "one", "data.source": "one"}),
        Layer({"train": {"epochs": 2}}, {"train.epochs": "derived from model.size"}),
        Layer({"train": {"epochs": 4, "clip": 2}}, {"train.epochs": "three", "train.clip": "three"}),
    ]
    resolved = resolve(Toy, layers)
    assert (resolved.config.train.epochs, resolved.config.train.clip) == (4, 2.0)
    assert (resolved.origins["train.epochs"], resolved.origins["train.clip"]) == ("three", "three")
    resolved = resolve(Toy, layers[:2])
    assert resolved.origins["train.epochs"] == "derived from model.size"
    assert base == {"name": "a", "data": {"source": "s"}}


@given(
    st.dictionaries(st.sampled_from(["epochs", "clip", "amp"]), st.sampled_from(["1", "2", "0"]), max_size=3),
    st.dictionaries(st.sampled_from(["epochs", "clip", "amp"]), st.sampled_from(["1", "2", "0"]), max_size=3),
)
def test_an_origin_tells_who_gave_the_value(below: dict[str, str], above: dict[str, str]) -> None:
    class Loose(Config):
        epochs: str = "default"
        clip: str = "default"
        amp: str = "default"

    layers = [
        Layer({k: f"{who} {v}" for k, v in values.items()}, dict.fromkeys(values, who))
        for who, values in (("below", below), ("above", above))
    ]
    resolved = resolve(Loose, layers)
    for key, value in leaves(resolved.config.plain()):
        assert value.split()[0] == resolved.origins[key]


def test_a_section_given_in_one_word_has_its_origins(recipe: Path) -> None:
    resolved = over(recipe, "train={epochs: 5, clip: null}")
    assert (resolved.config.train.epochs, resolved.config.train.clip) == (5, None)
    assert {key: resolved.origins[f"train.{key}"] for key in ("epochs", "clip", "amp")} == {
        "epochs": "command line",
        "clip": "command line",
        "amp": "default",
    }


def test_what_is_covered_loses_its_origin() -> None:
    section = Layer({"a": {"b": 1, "c": 2}}, {"a.b": "file:1", "a.c": "file:2"})

    class Anything(Config):
        a: Any = None

    assert resolve(Anything, [section, read_overrides(["a=7"])]).origins == {"a": "command line"}
    assert resolve(Anything, [read_overrides(["a=7"]), section]).origins == {"a.b": "file:1", "a.c": "file:2"}


def test_the_origin_of_values_that_a_shorthand_stands_for() -> None:
    class Short(Config):
        point: Point

        @field_validator("point", mode="before")
        @classmethod
        def _diagonal(cls, value: Any) -> Any:
            return {"x": value, "y": value} if isinstance(value, int) else value

    resolved = resolve(Short, [Layer({"point": 3}, {"point": "file:9"})])
    assert resolved.origins == {"point.x": "file:9", "point.y": "file:9"}


def test_leaves() -> None:
    assert list(leaves({"a": 1, "b": {"c": [2], "d": {}, "e": {"f": None}}})) == [
        ("a", 1),
        ("b.c", [2]),
        ("b.d", {}),
        ("b.e.f", None),
    ]


# the command line


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("a=3", 3),
        ("a=1e-3", "1e-3"),
        ("a=1.5", 1.5),
        ("a=true", True),
        ("a=null", None),
        ("a=", None),
        ("a=[1, x]", [1, "x"]),
        ("a={b: 2}", {"b": 2}),
        ("a='3'", "3"),
        ("a=x=y", "x=y"),
        ("a=sample:zh-reviews", "sample:zh-reviews"),
        ("a=质量", "质量"),
    ],
)
def test_the_value_of_a_word_is_yaml(word: str, value: object) -> None:
    assert read_overrides([word]).values == {"a": value}


def test_later_words_lie_over_earlier_ones() -> None:
    assert read_overrides(["a.b=1", "a.c=2", "a.b=3"]).values == {"a": {"b": 3, "c": 2}}
    assert read_overrides(["a.b=1", "a={c: 2}"]).values == {"a": {"b": 1, "c": 2}}
    assert read_overrides(["a.b=1", "a=2"]) == Layer({"a": 2}, {"a": "command line"})
    assert read_overrides(["a=2", "a.b=1"]) == Layer({"a": {"b": 1}}, {"a.b": "command line"})


@pytest.mark.parametrize("word", ["epochs", "=3", "", "--epochs"])
def test_a_word_that_is_no_override(word: str) -> None:
    with pytest.raises(UsageError, match="not understood") as caught:
        read_overrides([word])
    assert "key=value" in (caught.value.advice or "")


@pytest.mark.parametrize("word", ["a=[1", "a={b", "a=2024-13-45", "a=\x00", "a=!!python/name:os.system x", "a=*b"])
def test_a_word_whose_value_is_not_yaml(word: str) -> None:
    with pytest.raises(UsageError, match="not valid YAML") as caught:
        read_overrides([word])
    assert caught.value.where == f"command line: {word}"


def test_values_of_words_get_the_types_of_their_keys(recipe: Path) -> None:
    train = over(
        recipe,
        "train.learning_rate=1e-3",
        "train.clip=null",
        "train.from=best",
        "train.path=a/b",
        "train.points=[{x: 1}]",
        "name='123'",
    ).config.train
    assert (train.learning_rate, train.clip, train.from_, train.path) == (0.001, None, "best", Path("a/b"))
    assert train.points == (Point(x=1),)


# what is wrong, and where


def test_an_unknown_key_suggests_the_nearest(recipe: Path) -> None:
    recipe.write_text(RECIPE.replace("epochs", "epocs"))
    error = error_of(recipe)
    assert error.what == "unknown key 'train.epocs'"
    assert error.where == f"{recipe}:7"
    assert error.advice == "did you mean 'epochs'?"
    assert error.exit_code == 2


@pytest.mark.parametrize(
    ("word", "what", "advice"),
    [
        ("trian.epochs=3", "unknown key 'trian'", "did you mean 'train'?"),
        ("data.split.vaild=0.1", "unknown key 'data.split.vaild'", "did you mean 'valid'?"),
        ("train.form=best", "unknown key 'train.form'", "did you mean 'from'?"),
        ("train.from_=best", "unknown key 'train.from_'", "did you mean 'from'?"),
        ("train.qqqq=1", "unknown key 'train.qqqq'", "known here: amp, clip, epochs, from, "),
        ("train.point={qqq: 1}", "unknown key 'train.point.qqq'", "known here: x, y"),
        ("train.points=[{x: 1}, {z: 1}]", "unknown key 'train.points.1.z'", "known here: x, y"),
        ("train..epochs=1", "unknown key 'train.'", "known here: "),
    ],
)
def test_an_unknown_key_on_the_command_line(recipe: Path, word: str, what: str, advice: str) -> None:
    error = error_of(recipe, word)
    assert error.what == what
    assert error.where == "command line"
    assert (error.advice or "").startswith(advice)


def test_a_union_of_configs_does_not_confuse_the_advice() -> None:
    class Either(Config):
        item: Point | Split

    with pytest.raises(UsageError, match="unknown key"):
        resolve(Either, [read_overrides(["item={valid: 0.5, tset: 1}"])])


@pytest.mark.parametrize(
    ("text", "what", "line"),
    [
        ("name: toy\ndata: {source: s}\ntrain:\n  epochs: many\n", "train.epochs: .* valid integer.*got 'many'", ":4"),
        ("name: toy\ndata: {source: s}\ntrain:\n  epochs: 0\n", r"train.epochs: at least one epoch \(got 0\)", ":4"),
        ("name: toy\ndata: {source: s}\ntrain:\n  epochs: 2.5\n", "train.epochs: .*fractional", ":4"),
        ("name: toy\ndata: {source: s}\ntrain:\n  clip: .inf\n", "train.clip: .*finite", ":4"),
        ("name: toy\ndata: {source: s}\ntrain:\n  clip: nan\n", "train.clip: .*finite", ":4"),
        ("name: toy\ndata: {source: s}\ntrain:\n  from: bset\n", "train.from: .*'scratch' or 'best'", ":4"),
        ("name: toy\ndata: {source: s}\ntrain:\n  points:\n  - {x: 1}\n  - {x: a}\n", "train.points.1.x: ", ":6"),
        ("name: toy\ndata: 3\n", r"data: .*\(got 3\)", ":2"),
        ("name: toy\ndata:\n  - source\n", "data: ", ":2"),
        ("name: 3\ndata: {source: s}\n", "name: .*valid string", ":1"),
        ("data: {source: s}\nname:\n  first: x\n", "name: .*valid string", ":3"),
    ],
)
def test_a_wrong_value_is_named_with_its_line(tmp_path: Path, text: str, what: str, line: str) -> None:
    layer = read(tmp_path, text)
    with pytest.raises(UsageError, match=what) as caught:
        resolve(Toy, [layer])
    assert caught.value.where == f"{tmp_path / 'r.yaml'}{line}"


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"data\.source is missing") as caught:
        resolve(Toy, [read(tmp_path, "name: toy\ndata: {split: {valid: 0.1}}\n")])
    assert caught.value.advice == "add data.source"
    with pytest.raises(UsageError, match="name is missing; also data is missing"):
        resolve(Toy, [read(tmp_path, "")])


def test_several_faults_are_told_at_once(recipe: Path) -> None:
    error = error_of(recipe, "train.epochs=x", "train.epocs=1", "data.source=null")
    for key in ("train.epochs", "train.epocs", "data.source"):
        assert key in error.what


# YAML's traps


@pytest.mark.parametrize(
    ("written", "value"), [("1e-3", 0.001), ("1E-3", 0.001), ("1.e-3", 0.001), ("0.001", 0.001), ("1", 1.0)]
)
def test_every_way_to_write_a_float(recipe: Path, written: str, value: float) -> None:
    assert over(recipe, f"train.learning_rate={written}").config.train.learning_rate == value
    recipe.write_text(RECIPE + f"  learning_rate: {written}\n")
    assert over(recipe).config.train.learning_rate == value


@pytest.mark.parametrize("written", ["no", "yes", "on", "off", "true", "False"])
def test_yes_and_no_are_not_numbers_or_names(recipe: Path, written: str) -> None:
    for key in ("train.epochs", "train.learning_rate", "train.clip"):
        assert "a number is due, not yes or no" in error_of(recipe, f"{key}={written}").what
    assert "valid string" in error_of(recipe, f"name={written}").what
    assert over(recipe, f"train.amp={written}").config.train.amp is (written in ("yes", "on", "true"))


@pytest.mark.parametrize("key", ["no", "on", "1", "null", "2024-01-01", "1e3", "012", "0x10"])
def test_a_key_is_what_is_written(tmp_path: Path, key: str) -> None:
    layer = read(tmp_path, f"name: toy\ndata:\n  source: s\n  columns:\n    {key}: a\n")
    resolved = resolve(Toy, [layer])
    assert resolved.config.data.columns == {key: "a"}
    assert resolved.origins[f"data.columns.{key}"] == f"{tmp_path / 'r.yaml'}:5"


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ("name: a\nname: b\n", "name", 2),
        ("data:\n  source: a\n  split: {}\n  source: b\n", "data.source", 4),
        ("train: {epochs: 1, epochs: 1}\n", "train.epochs", 1),
        ("train:\n  points:\n  - x: 1\n    x: 2\n", "train.points.0.x", 4),
        ("a: {b: {c: 1}}\nd: 1\na: {b: {e: 2}}\n", "a", 3),
    ],
)
def test_a_key_given_twice(tmp_path: Path, text: str, key: str, line: int) -> None:
    with pytest.raises(UsageError, match=f"{key} is given twice") as caught:
        read(tmp_path, text)
    assert caught.value.where == f"{tmp_path / 'r.yaml'}:{line}"


def test_a_key_given_twice_in_a_word() -> None:
    with pytest.raises(UsageError, match=r"a\.b is given twice"):
        read_overrides(["a={b: 1, b: 2}"])


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("name: [1\n", ":2"),
        ("a: b: c\n", ":1"),
        ("a:\n\t- b\n", ":2"),
        ("a: 1\n---\nb: 2\n", ":2"),
        ("a: *nothing\n", ":1"),
        ("b: 1\na: 2024-13-45\n", ":2"),
        ("b: 1\n? [x]\n: 1\n", ":2"),
        ("a: \x00\n", ""),
        ("a: !!python/object/apply:os.system [ls]\nb: !!python/name:os.system\n", ":2"),
        ("a: &a {b: *a}\n", ""),
        ("[" * 1500, ""),
    ],
)
def test_what_is_not_yaml_is_named_with_its_line(tmp_path: Path, text: str, where: str) -> None:
    with pytest.raises(UsageError, match="not valid YAML") as caught:
        read(tmp_path, text)
    assert caught.value.where == f"{tmp_path / 'r.yaml'}{where}"


@pytest.mark.parametrize("text", ["- a\n", "just words\n", "3\n", "false\n", "[]\n"])
def test_a_recipe_is_a_mapping(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="a mapping of keys to values"):
        read(tmp_path, text)


def test_an_empty_recipe_is_empty(tmp_path: Path) -> None:
    for text in ("", "# nothing\n", "\n", "null\n"):
        assert read(tmp_path, text) == Layer({}, {})


def test_a_recipe_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file") as caught:
        read_yaml(tmp_path / "none.yaml")
    assert caught.value.where == str(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="cannot read"):
        read_yaml(tmp_path)
    (tmp_path / "gb.yaml").write_bytes("名: 丹".encode("gb18030"))
    with pytest.raises(UsageError, match="not UTF-8"):
        read_yaml(tmp_path / "gb.yaml")


def test_a_byte_order_mark_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"\xef\xbb\xbfname: toy\r\n")
    assert read_yaml(tmp_path / "r.yaml").values == {"name": "toy"}


keys = st.text("abcdefgh", min_size=1, max_size=3)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(keys, values, max_size=4))
def test_reading_gives_what_yaml_gives_and_a_line_for_every_value(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("yaml")
    layer = read(folder, yaml.safe_dump(document))
    assert layer.values == document
    assert {key for key, value in leaves(document) if value != {}} <= layer.origins.keys()
    written = (folder / "r.yaml").read_text(encoding="utf-8").split("\n")
    for key, origin in layer.origins.items():
        line = written[int(origin.rpartition(":")[2]) - 1]
        assert key.rpartition(".")[2] in line


# the base class


def test_a_config_is_frozen_strict_and_documented() -> None:
    with pytest.raises(ValidationError):
        Point().x = 3  # type: ignore[misc]  # this is what must not work
    with pytest.raises(ValidationError):
        Point(z=3)  # type: ignore[call-arg]  # this is what must not work
    with pytest.raises(TypeError):
        Point(3)  # type: ignore[call-arg]  # this is what must not work
    assert Point.model_json_schema()["properties"]["x"]["description"] == "Across."
