"""Accusations of the last years told again with small models, each audited as a user would, and its page kept.

    python bench/lineage/stories.py --folder DIR --into docs/stories [--only NAME ...] [--dataset DATA]

Takes some minutes the first time, on one core. May be stopped at any time: models that are there are not trained
again; the audits are made anew. Without ``--dataset`` the datasets are made from the sample ``zh-poetry`` of the
workspace, once. Fails where an audit says something else than it should.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from danlu.auditing import audit
from danlu.core.files import write_atomic
from danlu.core.progress import Silent
from danlu.core.workspace import Workspace
from danlu.report.audit import PARTS, TYPES
from danlu.report.words import markdown
from dataset import prepare_datasets
from stories_endpoint import served
from stories_models import StoryShop
from stories_told import STORIES, Story

__all__ = ["main", "tell"]

_PORT = 8765
"""Where the endpoint listens; its address is on a page."""


def tell(shop: StoryShop, name: str, into: Path, port: int) -> dict[str, Any]:
    """Lay out a story, audit it, and keep the page.

    Args:
        shop: The models.
        name: Of the story.
        into: Where the page goes, as ``NAME.html``.
        port: Where an endpoint listens, if there is one.

    Returns:
        The content of ``audit.json``.
    """
    story, folder = STORIES[name], shop.folder / "told" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    story.lay_out(shop, folder)
    words = ["against=reference", *story.words]
    with _suspect(shop, story, port) as (suspect, more), contextlib.chdir(folder):
        made = audit(Workspace(), suspect, [*more, *words], Silent())
        facts: dict[str, Any] = made.json("audit.json")
        page = (made.path / "audit.html").read_bytes()
    into.mkdir(parents=True, exist_ok=True)
    write_atomic(into / f"{name}.html", page)
    return facts


@contextlib.contextmanager
def _suspect(shop: StoryShop, story: Story, port: int) -> Iterator[tuple[str, list[str]]]:
    """What the audit is told of the suspect: a folder, or the address of an endpoint and what it serves."""
    if not story.behind:
        yield "suspect", []
        return
    with served(shop.path(story.behind), "suspect", port) as address:
        yield address, ["model=suspect"]


def _wrong(story: Story, facts: Mapping[str, Any]) -> list[str]:
    """What an audit says otherwise than it should."""
    found = []
    if facts["verdict"] not in story.verdicts:
        found.append(f"the verdict is {facts['verdict']} and should be {' or '.join(story.verdicts)}")
    if missing := set(story.types) - set(facts["types"]):
        found.append(f"it does not say {', '.join(sorted(missing))}, but {', '.join(facts['types']) or 'nothing'}")
    if story.part and facts["parts"] != [story.part]:
        found.append(f"it says that {facts['parts']} was taken, not {story.part}")
    return found


def _index(told: Mapping[str, Mapping[str, Any]]) -> str:
    """The pages in a table, in English and then in Chinese.

    Args:
        told: Name of a story -> the content of its ``audit.json``.
    """
    rows: dict[str, list[str]] = {"en": [], "zh": []}
    for name, facts in told.items():
        story = STORIES[name]
        done = []
        for each in facts["types"]:
            done += [TYPES[each], *(PARTS[part] for part in facts["parts"] if each == "partial")]
        for language, lines in rows.items():
            title, said, enacted, *types = (
                markdown(getattr(each, language)) for each in (story.title, story.said, story.enacted, *done)
            )
            what = "<br>".join([f"**{facts['verdict']}**", *types])
            lines.append(f"| [{title}]({name}.html) | {said} | {enacted} | {what} |")
    return _INDEX.format(en="\n".join(rows["en"]), zh="\n".join(rows["zh"]))


_INDEX = """# Accusations, told again

[中文](#指控重演)

Public accusations that one model was another in disguise, each re-enacted with small models that were trained for
seconds, and audited with `danlu audit`. Only what the accusation was about is re-enacted; nothing here was measured on
the models that are named, and nothing is said about them. The pages are what a user gets.

| whom it was about | what was said | what was re-enacted | the verdict |
|---|---|---|---|
{en}

`python bench/lineage/stories.py --folder DIR --into docs/stories` makes all of it from nothing, and fails where a
verdict is another one than it should be.

## 指控重演

公开的“套壳”指控，用训练几十秒的小模型逐一重演，并以 `danlu audit` 审计。这里重演的只是指控所涉及的做法：
没有测量所提到的模型，也不对它们下任何结论。各页面即用户会得到的页面。

| 涉及 | 当时的说法 | 重演了什么 | 结论 |
|---|---|---|---|
{zh}

`python bench/lineage/stories.py --folder DIR --into docs/stories` 从零生成全部内容；若结论与应有的不同，则报错。
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=STORIES, default=list(STORIES), metavar="NAME")
    parser.add_argument("--dataset", type=Path, help="a folder that dataset.py made")
    parser.add_argument("--steps", type=int, help="steps that a model is trained for")
    parser.add_argument("--port", type=int, default=_PORT, help="where the endpoint listens; 0: anywhere")
    given = parser.parse_args()
    data = given.dataset or given.folder / "data"
    if given.dataset is None:
        prepare_datasets(Workspace().samples, data)
    shop = StoryShop(given.folder, data, given.steps)
    shop.begin()
    into, told, wrong = given.into.absolute(), {}, []
    for name in given.only:
        facts = tell(shop, name, into, given.port)
        told[name] = facts
        print(name, facts["verdict"], *facts["types"], *facts["parts"], *facts["disguises"], sep="  ", flush=True)
        wrong += [f"{name}: {what}" for what in _wrong(STORIES[name], facts)]
    if list(told) == list(STORIES):
        write_atomic(into / "README.md", _index(told).encode())
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
