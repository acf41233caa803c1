"""Make every model of the lineage benchmark, in as many processes as there are workers.

    python bench/lineage/build.py --folder DIR [--scale full] [--workers 2] [--device auto] [--dataset DATA]

May be stopped at any time; the same command goes on with what is missing. Without ``--dataset`` the datasets are made
from the sample ``zh-poetry`` of the workspace, once.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # before torch is imported, here and in every worker
    os.environ.setdefault(_name, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from danlu.core.workspace import Workspace  # noqa: E402
from dataset import prepare_datasets  # noqa: E402 - the threads come first
from plan import SCALES  # noqa: E402
from shop import Shop  # noqa: E402

_SHOP: list[Shop] = []
"""The worker's own."""


def open_shop(*told: Any) -> None:
    """In a worker: open the folder."""
    import torch

    torch.set_num_threads(1)
    _SHOP[:] = [Shop(*told)]


def make(name: str) -> tuple[str, float, dict[str, Any]]:
    """In a worker: make one model, with what it answers."""
    from danlu.core.files import digest_of, write_json
    from danlu.model.gpt import Gpt
    from derive import DERIVED, Made
    from disguise import DISGUISES
    from learn import TRAINED, train_base

    (shop,) = _SHOP
    item, began = shop.items[name], time.monotonic()
    if item.how == "base":
        train_base(shop, item)
        shop.keep_answers(name, shop.module(name), shop.tokenizer(name))
        return name, time.monotonic() - began, {}
    made: Made = {**DERIVED, **DISGUISES, **TRAINED}[item.how](shop, item)
    assert isinstance(made.module, Gpt)
    shop.keep_answers(name, made.module, made.tokenizer)
    parents = {need: found.digest for need in item.needs if (found := shop.find(need)) is not None}
    config = {"item": asdict(item), "steps": shop.steps}
    with shop.workspace.create("model", name, key=digest_of(config), config=_plain(config), parents=parents) as draft:
        made.module.cpu()
        made.save(draft.folder)
        write_json(draft.folder / "facts.json", dict(made.facts))
    return name, time.monotonic() - began, dict(made.facts)


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    import json

    plain: dict[str, Any] = json.loads(json.dumps(config))
    return plain


def build(shop: Shop, told: tuple[Any, ...], n_workers: int) -> list[str]:
    """Make what is missing, what others need first.

    Returns:
        The models that could not be made.
    """
    done = {name for name in shop.items if shop.is_done(name)}
    waiting = [name for name in shop.items if name not in done]
    print(f"{len(done)} of {len(shop.items)} models are there", flush=True)
    under_way: dict[Future[Any], str] = {}
    failed: list[str] = []
    began = time.monotonic()
    context = get_context("spawn")
    with ProcessPoolExecutor(n_workers, mp_context=context, initializer=open_shop, initargs=told) as pool:
        while waiting or under_way:
            ready = [name for name in waiting if all(need in done for need in shop.items[name].needs)]
            for name in ready:
                under_way[pool.submit(make, name)] = name
                waiting.remove(name)
            if not under_way:
                break
            finished, _ = wait(under_way, return_when=FIRST_COMPLETED)
            for future in finished:
                name = under_way.pop(future)
                if error := future.exception():
                    failed.append(name)
                    print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                    continue
                _, seconds, facts = future.result()
                done.add(name)
                told_facts = " ".join(f"{key}={value:.3g}" for key, value in facts.items())
                print(f"{time.monotonic() - began:6.1f} s  {name}  {seconds:.1f} s  {told_facts}", flush=True)
    return [*failed, *waiting]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--scale", choices=sorted(SCALES), default="full")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto")
    parser.add_argument("--dataset", type=Path, help="a folder that dataset.py made")
    parser.add_argument("--steps", type=int, help="steps that a base is trained for")
    given = parser.parse_args()
    if given.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    data = given.dataset or given.folder / "data"
    if given.dataset is None:
        prepare_datasets(Workspace().samples, data)
    told = (given.folder, given.scale, data, given.steps)
    shop = Shop(*told)
    shop.begin()
    shop.asked  # noqa: B018 - texts are cut once, before the workers all want them
    failed = build(shop, told, given.workers)
    if failed:
        raise SystemExit(f"{len(failed)} models could not be made: {', '.join(failed)}")
    print(f"{len(shop.items)} models are there")


if __name__ == "__main__":
    main()
