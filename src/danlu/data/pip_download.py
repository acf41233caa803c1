"""Has pip bring one file of a package, and never build it. Run as a program by `danlu.data.registries`.

`pip download` runs a source distribution's build to learn its dependencies, and has no option against that. So this
asks pip's own finder where the file is and reads it through pip's own session, with the indexes, mirrors, proxies,
certificates and credentials that the machine's pip is configured for, and stops there. pip does not promise that its
insides stay as they are; they have held from pip 22 to 26, and `registries` says what to do instead where they do not.

Standard output: a line `done total` (bytes; total 0 where unknown) every 4 MiB. Standard error: what went wrong.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pip._internal.cli.status_codes import ERROR, SUCCESS
from pip._internal.commands.download import DownloadCommand
from pip._vendor.requests.exceptions import RequestException
from pip._vendor.urllib3.exceptions import HTTPError

__all__ = ["DownloadOneFile"]

CHUNK = 1 << 20
RANGE_NOT_SATISFIABLE = 416
PARTIAL_CONTENT = 206


class DownloadOneFile(DownloadCommand):
    """`pip download` up to the point where it has the file."""

    def run(self, options: Any, args: list[str]) -> int:
        """Brings a file, going on from what is there.

        Args:
            options: pip's options, from its configuration and environment.
            args: The package's name, the file's name, and the path to write or to add to.
        """
        package, filename, part = args
        session = self.get_default_session(options)
        finder = self._build_package_finder(options=options, session=session, ignore_requires_python=True)
        # Names are compared without case: indexes differ in it.
        links = [found.link for found in finder.find_all_candidates(package)]
        link = next((link for link in links if link.filename.lower() == filename.lower()), None)
        if link is None:
            print(f"none of the {len(links)} files found for {package} is {filename}", file=sys.stderr)
            return ERROR
        try:
            return self._read(session, link.url_without_fragment, Path(part))
        except (OSError, RequestException, HTTPError) as error:
            print(error, file=sys.stderr)
            return ERROR

    def _read(self, session: Any, url: str, part: Path) -> int:
        done = part.stat().st_size if part.exists() else 0
        headers = {"Accept-Encoding": "identity", "Range": f"bytes={done}-"}
        response = session.get(url, headers=headers if done else {"Accept-Encoding": "identity"}, stream=True)
        if done and response.status_code == RANGE_NOT_SATISFIABLE:
            return SUCCESS  # nothing is missing; the digest, checked by the caller, says whether it is right
        response.raise_for_status()
        if response.status_code != PARTIAL_CONTENT:
            done = 0  # a server that knows no ranges sends the whole again
        length = int(response.headers.get("Content-Length", 0))
        total = done + length if length else 0
        told = -1
        with part.open("ab" if done else "wb") as file:
            while chunk := response.raw.read(CHUNK):
                file.write(chunk)
                done += len(chunk)
                if done // (4 * CHUNK) != told:
                    told = done // (4 * CHUNK)
                    print(done, total, flush=True)
        print(done, total, flush=True)
        if done < total:
            print(f"the connection closed after {done:,} of {total:,} bytes", file=sys.stderr)
            return ERROR
        return SUCCESS


if __name__ == "__main__":
    OPTIONS = ["--quiet", "--no-input", "--no-cache-dir", "--disable-pip-version-check", "--no-binary=:none:"]
    sys.exit(DownloadOneFile("download", "").main([*OPTIONS, "--only-binary=:none:", "--", *sys.argv[1:]]))
