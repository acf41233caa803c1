"""Pages as trees, to look into them, and what holds for every page."""

from __future__ import annotations

import re
from html.parser import HTMLParser

UNITS = {"min", "GiB", "UTC"}
VOID = {"meta", "input", "br", "img", "link", "hr"}


class Node:
    """An element of a page."""

    def __init__(self, tag: str, attributes: dict[str, str | None], parent: Node | None) -> None:
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.children: list[Node | str] = []

    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text() for child in self.children)

    def walk(self) -> list[Node]:
        found = [self]
        for child in self.children:
            found += child.walk() if isinstance(child, Node) else []
        return found

    def has_class(self, name: str) -> bool:
        return name in (self.attributes.get("class") or "").split()

    def lineage(self) -> list[Node]:
        return [self, *(self.parent.lineage() if self.parent else [])]


class Page(HTMLParser):
    """A page as a tree; elements that are not closed in order are an error."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.root = self.at = Node("root", {}, None)
        self.feed(html)
        assert self.at is self.root, f"<{self.at.tag}> is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, dict(attrs), self.at)
        self.at.children.append(node)
        if tag not in VOID:
            self.at = node

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.at.children.append(Node(tag, dict(attrs), self.at))

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.at.tag, f"</{tag}> closes <{self.at.tag}>: …{self.at.text()[-80:]!r}"
        assert self.at.parent is not None
        self.at = self.at.parent

    def handle_data(self, data: str) -> None:
        self.at.children.append(data)


def check_self_contained(html: str) -> None:
    """A page is one file: it loads nothing, sends nothing, and its links lead to itself."""
    nodes = Page(html).root.walk()
    assert len(html.encode()) < 400_000
    assert not [node.tag for node in nodes if node.tag in {"link", "iframe", "object", "embed", "base", "form"}]
    for node in nodes:
        for name, value in node.attributes.items():
            if node.tag == "img" and name == "src":
                assert re.fullmatch("data:image/png;base64,[A-Za-z0-9+/]+=*", value or "")
                continue
            assert name not in {"src", "srcset", "xlink:href", "action", "data"}, (node.tag, name)
            assert not name.startswith("on"), (node.tag, name)
            if name == "href":
                target = (value or "").removeprefix("#")
                assert value == f"#{target}"
                assert any(other.attributes.get("id") == target for other in nodes), value
    style = "".join(node.text() for node in nodes if node.tag in {"style", "script"})
    style += "".join(node.attributes.get("style") or "" for node in nodes)
    assert not re.search(r"url\(|@import|https?:|fetch\(|XMLHttp", style)


def _numbers(text: str) -> list[str]:
    return sorted(re.findall(r"\d+(?:[.,]\d+)*", text))


def check_both_languages(html: str) -> int:
    """Every phrase stands there in English and in Chinese, with the same numbers; how many there are."""
    n_pairs = 0
    for node in Page(html).root.walk():
        for index, child in enumerate(node.children):
            if isinstance(child, str):
                translated = any(
                    each.has_class("en") or each.has_class("zh") or each.attributes.get("translate") == "no"
                    or each.tag in {"style", "script"}
                    for each in node.lineage()
                )  # fmt: skip
                words = set(re.findall(r"[A-Za-z]{3,}|[一-鿿]+", child)) - UNITS
                assert translated or not words, child
            elif child.has_class("en"):
                other = node.children[index + 1]
                assert isinstance(other, Node)
                assert other.has_class("zh")
                english, chinese = child.text(), other.text()
                assert chinese.strip() or not english.strip()
                is_name = english == chinese
                assert is_name or re.search(r"[一-鿿]", chinese) or not re.search(r"[A-Za-z]{3,}", english), english
                assert _numbers(english) == _numbers(chinese), (english, chinese)
                assert not re.search(r"[A-Za-z0-9][一-鿿]", chinese), chinese
                assert "\0" not in english + chinese
                n_pairs += 1
            elif child.has_class("zh"):
                before = node.children[index - 1]
                assert isinstance(before, Node)
                assert before.has_class("en")
    return n_pairs
