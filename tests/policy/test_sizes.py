"""Files, functions and parameter lists stay small enough to hold in the head."""

from __future__ import annotations

import ast
from pathlib import Path

from syntax import modules

SRC = Path(__file__).parents[2] / "src"
MAX_FILE, MAX_FUNCTION, MAX_PARAMETERS = 400, 60, 8


def too_large(root: Path) -> list[str]:
    found = []
    for module in modules(root).values():
        n_lines = module.text.count("\n")
        if n_lines > MAX_FILE:
            found.append(module.at(n_lines, f"the file has {n_lines} lines, more than {MAX_FILE}"))
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            assert node.end_lineno is not None
            n_lines = node.end_lineno - node.lineno + 1
            if n_lines > MAX_FUNCTION:
                found.append(module.at(node, f"{node.name} has {n_lines} lines, more than {MAX_FUNCTION}"))
            every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
            n = len([argument for argument in every if argument is not None and argument.arg not in ("self", "cls")])
            if n > MAX_PARAMETERS:
                found.append(module.at(node, f"{node.name} has {n} parameters, more than {MAX_PARAMETERS}"))
    return found


def test_source_stays_within_its_budgets() -> None:
    assert too_large(SRC) == []


def test_what_is_too_large_is_found(tmp_path: Path) -> None:
    (tmp_path / "fits.py").write_text("x = 1\n" * 400)
    (tmp_path / "long.py").write_text("x = 1\n" * 401)
    body = "    x = 1\n"
    (tmp_path / "function.py").write_text("def fits():\n" + body * 59 + "def long():\n" + body * 60)
    (tmp_path / "inner.py").write_text("class A:\n    async def long(self):\n" + f"    {body}" * 60)
    eight = "a, b, /, c, d, *e, f, g, **h"
    (tmp_path / "wide.py").write_text(f"class A:\n    def fits(self, {eight}): ...\ndef wide(z, {eight}): ...\n")
    assert [finding.split(" has ")[0] for finding in too_large(tmp_path)] == [
        "function.py:61 long",
        "inner.py:2 long",
        "long.py:401 the file",
        "wide.py:3 wide",
    ]
