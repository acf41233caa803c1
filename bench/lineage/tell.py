"""The tables, pictures and page of the lineage benchmark.

    python bench/lineage/tell.py --folder DIR --into docs/lineage

Reads what run.py wrote; a row of every pair goes along as pairs.csv.gz.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import math
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from chinese import CHINESE
from danlu.core.files import write_atomic
from danlu.report import words
from danlu.report.words import Text, t
from pictures import curves, heat, quantiles
from plan import Scale, items_of
from run import read_rows
from shop import Shop
from tables import (
    EXACT,
    Halves,
    Rows,
    Table,
    convictions,
    exact_p,
    false_alarms,
    fractions,
    kinds,
    lengths,
    power,
    prices,
    thresholds,
    validity,
)

__all__ = ["main", "tables_of"]


def said(name: Any) -> Text | Any:
    """A name in both languages, where it is one of ours."""
    return t(name, CHINESE[name]) if name in CHINESE else name


def number(value: Any) -> str:
    """A value of a table."""
    if isinstance(value, str) or value is None:
        return value or "–"
    if isinstance(value, float) and math.isnan(value):
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.2g}" if abs(value) < 0.01 and value else f"{value:.4f}".rstrip("0").rstrip(".")


def tables_of(pairs: Rows, scores: Rows, scale: Scale) -> dict[str, Table]:
    """Every table by the name of its file."""
    items = {item.name: item for item in items_of(scale)}
    siblings = [item.name for item in items.values() if item.group == "sibling"]
    halves = Halves.of(scale.references, siblings)
    most = thresholds(scores, items, halves)
    return {
        "validity": validity(pairs),
        "convictions": convictions(pairs),
        "power": power(pairs, scores, items, halves, most),
        "measures": false_alarms(scores, items, halves, most),
        "kinds": kinds(pairs, items),
        "figures": fractions(pairs, items),
        "lengths": lengths(pairs, items),
        "cost": prices(pairs, scores),
    }


def page_of(tables: dict[str, Table], pairs: Rows, n_models: int) -> str:
    """The page."""
    here = Path(__file__).parent
    environment = Environment(
        loader=ChoiceLoader([FileSystemLoader(here), PackageLoader("danlu.report")]),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
    )
    environment.globals |= {name: getattr(words, name) for name in words.__all__}
    environment.globals |= {"said": said, "number": number}
    p_values = {name: exact_p(pairs, column) for column, name in EXACT.items()}
    p_values = {name: p for name, p in p_values.items() if len(p)}
    unrelated = [row for row in tables["convictions"] if row["relation"] != "told seed"]
    return environment.get_template("page.html").render(
        n_models=n_models,
        n_kin=sum(row["relation"] == "kin" for row in pairs),
        n_unrelated=sum(row["pairs"] for row in unrelated),
        n_convicted=sum(row["convicted"] for row in unrelated),
        qq=quantiles(p_values, {name: said(name) for name in p_values}) if p_values else Markup(""),
        derivations=_heat(tables["power"], "derivation"),
        attacks=_heat(tables["power"], "attack"),
        seed_curve=curves(tables["lengths"], "z_seed", t("test of the seed, z", "种子检验，z")),
        data_curve=curves(tables["lengths"], "z_data_order", t("test of the order of data, z", "数据顺序检验，z")),
        alarms=tables["measures"],
        prices=tables["cost"],
        **{name: tables[name] for name in ("validity", "convictions", "kinds")},
        fractions=tables["figures"],
    )


def _heat(table: Table, group: str) -> Markup:
    fixed = ("group", "label", "n", "found", "low", "high")
    rows = [row for row in table if row["group"] == group]
    if not rows:
        return Markup("")
    measures = [key for key in rows[0] if key not in fixed]
    told = [
        (said(row["label"]), {"danlu": row["found"] / row["n"], **{name: row[name] for name in measures}}, row["n"])
        for row in rows
    ]
    return heat(told, ["danlu", *measures])


def write_csv(path: Path, rows: Rows | Table) -> None:
    """A table as a file; a large one (``.gz``) packed."""
    content = io.StringIO()
    if rows:
        writer = csv.DictWriter(content, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    plain = content.getvalue().encode()
    write_atomic(path, gzip.compress(plain, mtime=0) if path.suffix == ".gz" else plain)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--into", type=Path, required=True)
    given = parser.parse_args()
    results = given.folder / "results"
    pairs = read_rows(results / "pairs.csv")
    scores = [*read_rows(results / "scores.csv"), *read_rows(results / "tools.csv")]
    if not pairs:
        raise SystemExit(f"{given.folder} has no results yet: run run.py first")
    shop = Shop.opened(given.folder)
    tables = tables_of(pairs, scores, shop.scale)
    given.into.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        write_csv(given.into / f"{name}.csv", table)
    write_csv(given.into / "pairs.csv.gz", pairs)
    write_csv(given.into / "scores.csv.gz", scores)
    page = page_of(tables, pairs, len({row[side] for row in pairs for side in ("suspect", "reference")}))
    write_atomic(given.into / "index.html", page.encode())
    for name in ("convictions", "validity", "figures"):
        for row in tables[name]:
            print(" · ".join(f"{key} {number(value)}" for key, value in row.items()))


if __name__ == "__main__":
    main()
