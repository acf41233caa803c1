"""Where alerts are posted as JSON: an address that the user wrote, and no other.

A hook's address is its password: of it only scheme and host are ever shown. Redirects are not followed, for what was
meant for one host must not reach another.
"""

from __future__ import annotations

import hashlib
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from danlu.core.errors import UsageError

__all__ = ["Webhook"]

_SECONDS = 5.0
"""How long a host may be silent."""
_PATIENCE = 10.0
"""How long a post may take in all."""


class Webhook:
    """A hook.

    Args:
        address: Of the scheme http or https.

    Attributes:
        shown: Scheme and host.
        key: What tells hooks apart in the record, without saying what their address is.

    Raises:
        UsageError: It is no such address.
    """

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            advice = "give the whole address of the hook, from its scheme on"
            raise UsageError("a webhook is an address of the scheme http or https", where="webhook", advice=advice)
        self._address = address
        self.shown = f"{parts.scheme}://{parts.hostname}"
        self.key = hashlib.sha256(address.encode()).hexdigest()[:16]
        self._opener = urllib.request.build_opener(_NoRedirect)

    def post(self, body: Mapping[str, Any]) -> str | None:
        """Post a JSON object; why it failed, or None. It takes ten seconds at most, whatever the host does."""
        why = [f"no answer within {_PATIENCE:.0f} seconds"]
        done = threading.Thread(target=lambda: why.append(self._post(body)), daemon=True)
        done.start()
        done.join(_PATIENCE)
        return why[-1] or None

    def _post(self, body: Mapping[str, Any]) -> str:
        content = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        headers = {"content-type": "application/json; charset=utf-8", "user-agent": "danlu"}
        request = urllib.request.Request(self._address, content, headers, method="POST")  # noqa: S310 (checked)
        try:
            with self._opener.open(request, timeout=_SECONDS):
                return ""
        except urllib.error.HTTPError as error:
            with error:
                return f"it answered {error.code}"
        except urllib.error.URLError as error:
            return f"it cannot be reached: {getattr(error.reason, 'strerror', None) or type(error.reason).__name__}"
        except (OSError, ValueError) as error:  # ValueError: http.client about what the host sent
            return f"it cannot be reached: {getattr(error, 'strerror', None) or type(error).__name__}"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_more: Any) -> None:
        """A redirect stays the error that it came as."""
