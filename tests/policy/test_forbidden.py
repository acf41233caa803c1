"""What runs foreign code, ties danlu to one machine or names a registry has no place in it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from syntax import Module, docstrings, modules

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src"

MODULES = {"pickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "imp"}
CALLS = re.compile(
    r"(eval|exec|compile|__import__|builtins\.\w+"
    r"|torch\.(load|jit\.load|hub\.\w+(\.\w+)*|package\.\w+)"
    r"|yaml\.(load|load_all|full_load\w*|unsafe_load\w*|Loader|FullLoader|UnsafeLoader|CLoader|CFullLoader|CUnsafeLoader)"
    r"|(\w+\.)*(read_pickle|load_pickle|to_pickle))"
)
KEYWORDS = {"allow_pickle": True, "trust_remote_code": True, "shell": True}
"""Arguments that may not be given unless as the constant False."""

IDENTIFIERS = {"in-toto.io", "json-schema.org", "slsa.dev", "www.w3.org"}
"""Addresses that are names: nothing is ever fetched from them."""
ADDRESS = re.compile(r"\bhttps?://([\w.-]+)")
REGISTRY = re.compile(
    r"\b(pypi|pythonhosted|npmjs|npmmirror|tuna|aliyun|anaconda|conda-forge|huggingface|hf-mirror|modelscope|debian)"
    r"[\w-]*(\.[\w-]+)*\.(org|com|co|cn|io|net|edu)\b",
    re.IGNORECASE,
)
MACHINE_PATH = re.compile(r"(?<![\w.~}])(/(home|Users|root|work)/\w|[A-Z]:\\\\?Users\b)")


def foreign_code(root: Path) -> list[str]:
    """Ways to run what was read from a file or brought from elsewhere."""
    found = []
    for module in modules(root).values():
        wrong = [item for item in module.imports() if item[1].split(".")[0] in MODULES or CALLS.fullmatch(item[1])]
        found += [module.at(statement, f"imports {name}") for statement, name in wrong]
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Name | ast.Attribute) and CALLS.fullmatch(name := module.dotted(node)):
                found.append(module.at(node, f"uses {name}"))
            elif isinstance(node, ast.keyword) and node.arg in KEYWORDS:
                if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                    found.append(module.at(node.value, f"passes {node.arg}"))
            elif isinstance(node, ast.Constant) and node.value in KEYWORDS:
                found.append(module.at(node, f"names {node.value}"))
    return sorted(set(found))


def addresses(root: Path) -> list[str]:
    """Addresses in code: nothing but names; in comments and docstrings, papers and standards, never a registry."""
    found = []
    for module in modules(root).values():
        described = docstrings(module.tree)
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in described:
                hosts = set(ADDRESS.findall(node.value)) - IDENTIFIERS
                found += [module.at(node, f"holds the address {host}") for host in sorted(hosts)]
    return found


def machine_traces(root: Path, files: list[Path]) -> list[str]:
    """Registries and paths of one machine, anywhere in a text file."""
    found = []
    for path in files:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            for pattern, what in ((REGISTRY, "names a registry"), (MACHINE_PATH, "holds a path of one machine")):
                if match := pattern.search(line):
                    found.append(f"{path.relative_to(root)}:{number} {what}: {match[0]}")
    return found


def texts(root: Path) -> list[Path]:
    """The project's own text files."""
    kinds = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".cfg", ".html", ".css", ".js", ".jinja", ".j2", ".ipynb"}
    found = [path for path in root.iterdir() if path.is_file() and (path.suffix in kinds or path.name == "Makefile")]
    for folder in ("src", "tests", "bench", "docs", "recipes", ".ci"):
        inside = (root / folder).rglob("*")
        found += [path for path in inside if path.is_file() and (path.suffix in kinds or folder == ".ci")]
    return sorted(path for path in found if path != Path(__file__))


def test_nothing_runs_foreign_code() -> None:
    assert foreign_code(SRC) == []


def test_no_address_stands_in_the_code() -> None:
    assert addresses(SRC) == []


def test_no_registry_and_no_path_of_one_machine_anywhere() -> None:
    files = texts(ROOT)
    assert SRC / "danlu" / "core" / "files.py" in files
    assert machine_traces(ROOT, files) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib",
        "from joblib import load",
        "def f():\n    import marshal as m",
        "import shelve, json",
        "import torch\ntorch.load('x')",
        "import torch as t\nt.load('x')",
        "from torch import load",
        "import torch.hub\ntorch.hub.load('x')",
        "import yaml\nyaml.load(x, Loader=yaml.SafeLoader)",
        "from yaml import unsafe_load",
        "import yaml\nyaml.UnsafeLoader(x)",
        "eval('1')",
        "exec('x')",
        "run = eval",
        "__import__('os')",
        "import builtins\nbuiltins.eval('1')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "np.load('x', allow_pickle=wanted)",
        "f(trust_remote_code=True)",
        "f(**{'trust_remote_code': True})",
        "run('ls', shell=True)",
        "import pandas as pd\npd.read_pickle('x')",
    ],
)
def test_foreign_code_is_found(tmp_path: Path, code: str) -> None:
    (tmp_path / "bad.py").write_text(f"\n{code}\n")
    found = foreign_code(tmp_path)
    assert found
    assert all(re.match(r"bad.py:[23] ", finding) for finding in found)


def test_what_only_sounds_like_it_is_left_alone(tmp_path: Path) -> None:
    code = """
        import re, yaml, torch, json
        from safetensors.torch import load_file
        model.eval(); re.compile("x"); json.load(f); yaml.safe_load(f); yaml.SafeLoader(f)
        np.load("x", allow_pickle=False); torch.compile(model); run(shell=False)
    """
    (tmp_path / "good.py").write_text("'''No pickle, no torch.load.'''\n" + code.replace("\n        ", "\n"))
    assert foreign_code(tmp_path) == []


def test_an_address_is_found(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("X = 'https://json-schema.org/x'\nY = f'http://example.com/{X}'\n")
    (tmp_path / "good.py").write_text("'''See https://example.com.'''\n# https://example.com\n")
    assert addresses(tmp_path) == ["bad.py:2 holds the address example.com"]


@pytest.mark.parametrize(
    "line",
    [
        # Put together here, so that no address stands in the project.
        "index = https:/" + "/pypi" + ".org/simple",
        "# files.pythonhosted" + ".org",
        "registry.npmjs" + ".org",
        "see https:/" + "/huggingface" + ".co/bert",
        "mirror.pypi" + ".edu.cn",
        "open('/home/me/x')",
        '"/root/x"',
        "path=/" + "work/x",
        r"C:\Users\me",
    ],
)
def test_a_trace_of_a_machine_is_found(tmp_path: Path, line: str) -> None:
    path = tmp_path / "notes.md"
    path.write_text(f"fine\n{line}\n")
    (finding,) = machine_traces(tmp_path, [path])
    assert finding.startswith("notes.md:2 ")


def test_ordinary_words_are_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "notes.md"
    path.write_text("PyPI, npm and Hugging Face; data/home/x, ./home/x, ~/home/x, example.org/root/x, network/x\n")
    assert machine_traces(tmp_path, [path]) == []


def test_a_module_knows_its_own_names() -> None:
    module = Module("m", Path("m.py"), "import a.b\nimport c.d as e\nfrom f import g as h\n")
    expressions = {"a.b.x": "a.b.x", "e.x": "c.d.x", "h": "f.g", "z.y": "z.y", "f().x": ""}
    for text, name in expressions.items():
        assert module.dotted(ast.parse(text, mode="eval").body) == name
