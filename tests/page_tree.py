"""Pages as trees, to look into them."""

from __future__ import annotations

from html.parser import HTMLParser

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
