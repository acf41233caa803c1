"""Imports go one way, in no circle; only `fetch`, Ray, the audit of an endpoint and the server use the network."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

from syntax import Module, modules

SRC = Path(__file__).parents[2] / "src"

MAY_IMPORT = {
    "core": set(),
    "data": {"core"},
    "model": {"core", "data"},
    "train": {"core", "data", "model"},
    "evaluate": {"core", "data", "model"},
    "explain": {"core", "data", "model"},
    "compress": {"core", "data", "model", "train", "evaluate"},
    "audit": {"core", "model"},
    "serve": {"core", "data", "explain", "model"},
    "monitor": {"core", "data", "evaluate"},
    "improve": {"core", "data", "evaluate", "monitor"},
    "report": {"core"},
    "tune": {"core", "data", "model", "train"},
}
EVERYTHING = {
    "auditing",
    "board",
    "choosing",
    "cli",
    "doctor",
    "improving",
    "labelling",
    "monitoring",
    "pipeline",
    "promoting",
    "recipe",
    "recording",
    "reference",
    "retraining",
    "start",
    "tuning",
    "verifying",
    "watching",
    "__main__",
}
"""The composition root: it may import all, and none of the packages above may import it."""
EVERYBODY = {"_version"}
MODEL_WITH_DATA = {
    "danlu.model.classifier",
    "danlu.model.language",
    "danlu.model.predictor",
    "danlu.model.pretrained.load",
    "danlu.model.pretrained.save",
    "danlu.model.pretrained.tokenizers",
    "danlu.model.text",
    "danlu.model.translator",
}
"""What answers from raw text; families and layers know tensors only."""

NETWORK = re.compile(
    r"(subprocess|socket|socketserver|http|requests|httpx|aiohttp|urllib3|ftplib|smtplib|telnetlib|xmlrpc|pty"
    r"|urllib\.request|huggingface_hub|multiprocessing\.connection|pip|ray|uvicorn"
    r"|os\.(system|popen|fork|forkpty|exec\w+|spawn\w+|posix_spawnp?)"
    r"|asyncio\.(open_connection|start_server|create_subprocess_\w+))(\.|$)"
)
MAY_REACH_OUT = {
    "danlu.audit.endpoint",
    "danlu.audit.record.revision",
    "danlu.data.fetch",
    "danlu.data.pip_download",
    "danlu.data.ray_cluster",
    "danlu.data.ray_engine",
    "danlu.data.registries",
    "danlu.monitor.webhook",
    "danlu.serve.connection",
    "danlu.serve.server",
    "danlu.serve.wire",
}
"""An endpoint is asked where the user wrote its address in place of a folder (``danlu audit``), and nobody else.
A webhook is told of alerts where the user wrote its address (``danlu monitor``). The revision asks git, on this
machine, which commit danlu is. Ray's processes talk to each other; to other machines
only where RAY_ADDRESS says so (tests/e2e/test_ray.py). The server listens at the address that the user gave, and
connects to nobody (tests/e2e/test_serve.py); a connection is how it hears, and its line to a model's process is a pair
of sockets without an address."""


def table_rows(module: Module) -> Iterator[tuple[ast.AST, str]]:
    """The modules that the rows of a lazy table name."""
    for node in ast.walk(module.tree):
        text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
        if re.fullmatch(r"danlu(\.\w+)+:\w+", text):
            yield node, text.partition(":")[0]


def ours(lines: Iterable[tuple[ast.AST, str]], known: set[str]) -> Iterator[tuple[ast.AST, str]]:
    """Dotted names cut down to the modules of ours that they lie in."""
    for node, name in lines:
        while name and name not in known:
            name = name.rpartition(".")[0]
        if name.split(".")[0] == "danlu":
            yield node, name


def wrong_directions(root: Path) -> list[str]:
    found = []
    known = modules(root)
    for module in known.values():
        found += [
            module.at(node, "imports relatively")
            for node in ast.walk(module.tree)
            if isinstance(node, ast.ImportFrom) and node.level
        ]
        package = module.name.split(".")[1] if "." in module.name else ""
        if package not in {*MAY_IMPORT, *EVERYTHING, *EVERYBODY, ""}:
            found.append(module.at(1, f"is in {package}, which the table of packages does not have"))
            continue
        if package in EVERYTHING:
            continue
        allowed = {package, *EVERYBODY, *MAY_IMPORT.get(package, set())}
        if package == "model" and module.name not in MODEL_WITH_DATA:
            allowed -= {"data"}
        for node, name in ours([*module.imports(), *table_rows(module)], set(known)):
            other = name.split(".")[1] if "." in name else ""
            if other and other not in allowed:
                found.append(module.at(node, f"imports {name}, which {package or 'danlu'} may not"))
    return found


def cycles(root: Path) -> list[str]:
    known = modules(root)
    graph = {module.name: {name for _, name in ours(module.imports(), set(known))} for module in known.values()}
    packages = {name for name in graph if known[name].path.name == "__init__.py"}
    for name in graph:
        graph[name] -= {name} | {package for package in packages if name.startswith(f"{package}.")}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = error.args[1]
        lines = []
        for imported, importer in pairwise(circle):
            node = next(node for node, name in ours(known[importer].imports(), set(known)) if name == imported)
            lines.append(known[importer].at(node, f"imports {imported}"))
        return lines
    return []


def reach_out(root: Path) -> list[str]:
    found = []
    for module in modules(root).values():
        if module.name in MAY_REACH_OUT:
            continue
        used: list[tuple[ast.AST, str]] = list(module.imports())
        used += [(node, module.dotted(node)) for node in ast.walk(module.tree) if isinstance(node, ast.Attribute)]
        found += [module.at(node, f"uses {name}") for node, name in used if NETWORK.match(name)]
    return sorted(set(found))


def test_imports_go_one_way() -> None:
    assert wrong_directions(SRC) == []


def test_modules_import_each_other_in_no_circle() -> None:
    assert cycles(SRC) == []


def test_only_fetch_ray_and_endpoints_open_connections_and_start_programs() -> None:
    assert reach_out(SRC) == []


def test_the_exceptions_are_still_there() -> None:
    assert set(modules(SRC)) >= MODEL_WITH_DATA | MAY_REACH_OUT


# The checks can fail


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"danlu/__init__.py": "", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("path", "text", "line"),
    [
        ("core/a.py", "import danlu.data.x\n", 1),
        ("core/a.py", "\nfrom danlu.data import x\n", 2),
        ("core/a.py", "from danlu import data\n", 1),
        ("core/a.py", "from danlu.data.x import thing as other\n", 1),
        ("core/a.py", "def f():\n    from danlu.data.x import thing\n", 2),
        ("core/a.py", "if TYPE_CHECKING:\n    import danlu.data.x as y\n", 2),
        ("core/a.py", "ROWS = {'x': 'danlu.data.x:Thing'}\n", 1),
        ("core/a.py", "import danlu.cli\n", 1),
        ("data/a.py", "import danlu.model.gru\n", 1),
        ("model/gru.py", "import danlu.data.x\n", 1),
        ("model/layers/a.py", "import danlu.data.x\n", 1),
        ("model/predictor.py", "import danlu.train.loop\n", 1),
        ("report/a.py", "import danlu.evaluate.metrics\n", 1),
        ("audit/a.py", "import danlu.data.x\n", 1),
        ("train/a.py", "from danlu.recipe import Recipe\n", 1),
        ("core/a.py", "from . import b\n", 1),
        ("core/a.py", "from ..data import x\n", 1),
        ("cli/a.py", "from .b import c\n", 1),
        ("surprise/a.py", "", 1),
        ("__init__.py", "import danlu.core.a\n", 1),
    ],
)
def test_a_wrong_direction_is_found(tmp_path: Path, path: str, text: str, line: int) -> None:
    others = (
        "core/a",
        "data/__init__",
        "data/x",
        "model/gru",
        "evaluate/metrics",
        "train/loop",
        "recipe",
        "cli/__init__",
    )
    root = write(tmp_path, {**{f"danlu/{name}.py": "" for name in others}, f"danlu/{path}": text})
    (finding,) = wrong_directions(root)
    assert finding.startswith(f"danlu/{path}:{line} ")


def test_right_directions_are_left_alone(tmp_path: Path) -> None:
    files = {
        "danlu/core/a.py": "import torch, json\nfrom danlu._version import __version__\n",
        "danlu/_version.py": "",
        "danlu/data/x.py": "from danlu.core import a\n",
        "danlu/model/predictor.py": "from danlu.data.x import y\n",
        "danlu/cli/a.py": "from danlu.model import predictor\nfrom danlu import recipe\n",
        "danlu/recipe.py": "'''Reads danlu.cli.'''\nfrom danlu.data.x import y\n",
    }
    assert wrong_directions(write(tmp_path, files)) == []


@pytest.mark.parametrize("third", ["import danlu.core.a\n", "def f():\n    from danlu.core.a import x\n"])
def test_a_circle_is_found(tmp_path: Path, third: str) -> None:
    files = {
        "danlu/core/__init__.py": "",
        "danlu/core/a.py": "from danlu.core.b import x\n",
        "danlu/core/b.py": "from danlu.core import c\n",
        "danlu/core/c.py": "",
    }
    assert cycles(write(tmp_path, files)) == []
    found = cycles(write(tmp_path, {"danlu/core/c.py": third}))
    assert {finding.split(":")[0] for finding in found} == {f"danlu/core/{name}.py" for name in "abc"}


@pytest.mark.parametrize(
    "text",
    [
        "import socket\n",
        "import urllib.request\n",
        "from urllib import request\n",
        "def f():\n    from urllib.request import urlopen\n",
        "import http.client as c\n",
        "import requests\n",
        "import subprocess\n",
        "from subprocess import run\n",
        "import os\nos.system('ls')\n",
        "import os as o\no.execvp('ls', [])\n",
        "from os import popen\n",
        "import huggingface_hub\n",
        "import uvicorn\n",
        "def f():\n    import ray.data\n",
        "import asyncio\nasyncio.create_subprocess_exec('ls')\n",
    ],
)
def test_a_way_out_is_found(tmp_path: Path, text: str) -> None:
    root = write(tmp_path, {"danlu/data/a.py": text, "danlu/data/fetch.py": text})
    found = reach_out(root)
    assert len({finding.split(" ")[0] for finding in found}) == 1
    assert all(finding.startswith("danlu/data/a.py:") for finding in found)


def test_what_is_no_way_out_is_left_alone(tmp_path: Path) -> None:
    text = "import os, urllib.parse\nfrom multiprocessing import get_context\nos.path.exists('a')\nself.socket.x = 1\n"
    assert reach_out(write(tmp_path, {"danlu/data/a.py": text})) == []
