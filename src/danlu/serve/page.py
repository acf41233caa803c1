"""The page: files of this package, sent as they are to whoever may reach the server.

They hold nothing of any model and need no key, as a browser that opens an address cannot send one; what the page asks
then needs one like every other question. Which files there are is settled when the server starts, and no part of a
request ever becomes a path.
"""

from __future__ import annotations

import functools
from importlib.resources import files
from pathlib import PurePosixPath

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import Response

__all__ = ["PAGE_ROUTES", "asset", "index", "is_page", "router"]

PAGE_ROUTES = ("/", "/assets/{file}")
"""The page's routes."""

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
_HEADERS = {
    # All there is comes from this server, scripts and styles in files of their own.
    "content-security-policy": "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}

router = APIRouter(include_in_schema=False)


def is_page(path: str) -> bool:
    """Whether a path is one of the page's files."""
    return path == "/" or (path.startswith("/assets/") and path.removeprefix("/assets/") in _files())


@router.get(PAGE_ROUTES[0])
async def index() -> Response:
    """The page."""
    return _sent("index.html")


@router.get(PAGE_ROUTES[1])
async def asset(file: str) -> Response:
    """What belongs to the page."""
    return _sent(file)


def _sent(name: str) -> Response:
    if name not in _files():
        raise HTTPException(404)
    return Response(_files()[name], media_type=_TYPES[PurePosixPath(name).suffix], headers=_HEADERS)


@functools.cache
def _files() -> dict[str, bytes]:
    """What there is, by name."""
    found = [each for each in (files("danlu.serve") / "assets").iterdir() if each.is_file()]
    return {each.name: each.read_bytes() for each in found if PurePosixPath(each.name).suffix in _TYPES}
