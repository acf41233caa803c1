"""Python source as the policy tests see it: modules, their syntax trees, what they import and what they name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

__all__ = ["Module", "docstrings", "modules"]


@dataclass(frozen=True)
class Module:
    """One source file.

    Attributes:
        name: Dotted name.
        path: The file, relative to the root.
        text: Its text.
    """

    name: str
    path: Path
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, str(self.path))

    def at(self, node: ast.AST | int, what: str) -> str:
        """A finding, as ``file:line what``."""
        return f"{self.path}:{node if isinstance(node, int) else getattr(node, 'lineno', 1)} {what}"

    @cached_property
    def names(self) -> dict[str, str]:
        """Name here -> dotted name of what was imported under it."""
        found = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for item in node.names:
                    found[item.asname or item.name.partition(".")[0]] = (
                        item.name if item.asname else item.name.partition(".")[0]
                    )
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for item in node.names:
                    found[item.asname or item.name] = f"{node.module}.{item.name}"
        return found

    def dotted(self, node: ast.expr) -> str:
        """``torch.load`` for ``t.load`` after ``import torch as t``; empty for what is no dotted name."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            owner = self.dotted(node.value)
            return f"{owner}.{node.attr}" if owner else ""
        return ""

    def imports(self) -> Iterator[tuple[ast.stmt, str]]:
        """Every imported dotted name, wherever in the file the import stands."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node, item.name) for item in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield from ((node, f"{node.module}.{item.name}") for item in node.names)


def modules(root: Path) -> dict[str, Module]:
    """Every module under a folder that would be on the import path."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module(name, path.relative_to(root), path.read_text(encoding="utf-8"))
    return found


def docstrings(tree: ast.AST) -> set[ast.AST]:
    """The constants that are docstrings, or stand alone under what they describe."""
    return {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
