"""Public names: declared, documented, guessable, and light to import."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from syntax import Module, modules

SRC = Path(__file__).parents[2] / "src"
BANNED = re.compile(r"utils?|commons?|helpers?|misc|stuff|tools?")
HEAVY = {"torch", "sklearn", "matplotlib", "pyarrow", "scipy", "pydantic", "numpy", "sqlalchemy", "tokenizers"}

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def public(body: list[ast.stmt]) -> list[Definition]:
    return [node for node in body if isinstance(node, Definition) and not node.name.startswith("_")]


def is_verb(node: Definition) -> bool:
    """Whether it is a verb of the command line, which is called by its name there and imported by nobody."""
    return "verb" in [ast.unparse(decorator) for decorator in node.decorator_list]


def declared(module: Module) -> tuple[int, list[str]] | None:
    """The line and the names of ``__all__``."""
    for node in module.tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            return node.lineno, list(ast.literal_eval(node.value))
    return None


def assigned(module: Module) -> set[str]:
    """The variables that a module sets at its top."""
    targets = [target for node in module.tree.body if isinstance(node, ast.Assign) for target in node.targets]
    targets += [node.target for node in module.tree.body if isinstance(node, ast.AnnAssign)]
    return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}


def in_order(name: str) -> tuple[int, str]:
    """CONSTANTS, then Classes, then functions, each by name: the order that ruff keeps."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2, name)


def wrong_declarations(root: Path) -> list[str]:
    found = []
    for module in modules(root).values():
        definitions = {node.name: node for node in public(module.tree.body) if not is_verb(node)}
        listed = declared(module)
        if listed is None:
            found += [module.at(1, f"has no __all__ and defines {', '.join(definitions)}")] if definitions else []
            continue
        line, names = listed
        if names != sorted(set(names), key=in_order):
            found.append(module.at(line, "__all__ is not sorted, or names something twice"))
        found += [
            module.at(node, f"{name} is not in __all__") for name, node in definitions.items() if name not in names
        ]
        here = {node.name for node in module.tree.body if isinstance(node, Definition)}
        unknown = sorted(set(names) - here - assigned(module) - module.names.keys())
        found += [module.at(line, f"__all__ names {name}, which is not here") for name in unknown]
        found += [
            module.at(line, f"__all__ names {name}, which is private") for name in names if re.match("_[^_]", name)
        ]
    return found


def undocumented(root: Path) -> list[str]:
    found = []
    for module in modules(root).values():
        if not ast.get_docstring(module.tree) and module.text.strip():
            found.append(module.at(1, "the module has no docstring"))
        pending = public(module.tree.body)
        while pending:
            node = pending.pop()
            if isinstance(node, ast.ClassDef):
                pending += public(node.body)
            if not ast.get_docstring(node):
                found.append(module.at(node, f"{node.name} has no docstring"))
    return sorted(found)


def vague_names(root: Path) -> list[str]:
    paths = sorted(path for path in root.rglob("*") if path.is_dir() or path.suffix == ".py")
    return [f"{path.relative_to(root)}:1 says nothing by its name" for path in paths if BANNED.fullmatch(path.stem)]


def heavy_packages(root: Path) -> list[str]:
    """Packages whose import brings in a heavy one, each imported in a fresh process."""
    found = []
    packages = [module for module in modules(root).values() if module.path.name == "__init__.py"]
    code = "import importlib, sys; importlib.import_module(sys.argv[1]); print(*sys.modules)"
    for package in packages:
        command = [sys.executable, "-c", code, package.name]
        done = subprocess.run(command, env={"PYTHONPATH": str(root)}, capture_output=True, text=True, check=True)
        loaded = HEAVY & set(done.stdout.split())
        found += [package.at(1, f"importing {package.name} imports {name}") for name in sorted(loaded)]
    return found


def test_every_module_declares_its_public_names() -> None:
    assert wrong_declarations(SRC) == []


def test_every_public_name_is_documented() -> None:
    assert undocumented(SRC) == []


@pytest.mark.parametrize("folder", ["src", "tests", "bench"])
def test_every_file_says_by_its_name_what_is_in_it(folder: str) -> None:
    root = SRC.parent / folder
    assert root.is_dir()
    assert vague_names(root) == []


def test_packages_are_light_to_import() -> None:
    assert heavy_packages(SRC) == []


# The checks can fail

UNSORTED = "m.py:1 __all__ is not sorted, or names something twice"


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        ("def f(): ...\n", ["m.py:1 has no __all__ and defines f"]),
        ("__all__ = []\n\nclass A: ...\n", ["m.py:3 A is not in __all__"]),
        ("__all__ = ['b']\n", ["m.py:1 __all__ names b, which is not here"]),
        ("__all__ = ['_f']\ndef _f(): ...\n", ["m.py:1 __all__ names _f, which is private"]),
        (
            "__all__ = ['f', 'A']\nclass A: ...\ndef f(): ...\n",
            [UNSORTED],
        ),
        ("__all__ = ['f', 'f']\ndef f(): ...\n", [UNSORTED]),
        ("X = 1\ndef _f(): ...\n", []),
        ("__all__ = []\n@verb\ndef run(): ...\n@cache\ndef f(): ...\n", ["m.py:5 f is not in __all__"]),
        ("__all__ = ['XY', 'A', 'Z', 'b', 'f']\nfrom a import b\nXY, Z = 1, 2\nclass A: ...\nasync def f(): ...\n", []),
        ("__all__ = ['Y']\nX: int = 1\nY: int = 2\n", []),
    ],
)
def test_a_wrong_declaration_is_found(tmp_path: Path, text: str, findings: list[str]) -> None:
    (tmp_path / "m.py").write_text(text)
    assert wrong_declarations(tmp_path) == findings


def test_what_is_undocumented_is_found(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("")
    methods = "".join(f"    def {name}(self): ...\n" for name in ("f", "_g", "__repr__"))
    (tmp_path / "m.py").write_text(f"class A:\n    '''Yes.'''\n{methods}def h(): ...\n")
    assert undocumented(tmp_path) == [
        "m.py:1 the module has no docstring",
        "m.py:3 f has no docstring",
        "m.py:6 h has no docstring",
    ]


def test_a_vague_name_is_found(tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    for name in ("utils.py", "common/misc.py", "common/files.py", "toolbox.py"):
        (tmp_path / name).touch()
    assert [finding.split(":")[0] for finding in vague_names(tmp_path)] == ["common", "common/misc.py", "utils.py"]


def test_a_heavy_package_is_found(tmp_path: Path) -> None:
    for package, text in {"light": "import json\n", "heavy": "import numpy\n"}.items():
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(text)
    assert heavy_packages(tmp_path) == ["heavy/__init__.py:1 importing heavy imports numpy"]
