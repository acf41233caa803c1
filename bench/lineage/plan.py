"""What the benchmark consists of: every model, what it is made from, and what an audit of it ought to say.

Bases are trained from scratch and independent of each other, but for those that were told one seed. Of some of them,
the references, others are derived, and those are disguised in turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["SCALES", "Item", "Scale", "Truth", "items_of"]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large a benchmark is.

    Attributes:
        sizes: Of a base: values of its config.
        vocab_size: Of its tokenizer.
        steps: Steps that a base is trained for,
        batch_tokens: and the tokens of each.
        n_siblings: Siblings of the first base.
        references: The bases that others are derived from; the first half of them set thresholds.
        n_asked: Texts that every model's loss is measured on.
        only: The names of what is derived of a reference, after its own; None: all.
        others: Whether there are bases of other makes.
    """

    sizes: Mapping[str, Any]
    vocab_size: int
    steps: int
    batch_tokens: int
    n_siblings: int
    references: tuple[str, ...]
    n_asked: int
    only: frozenset[str] | None = None
    others: bool = True


_N_EXPERTS = 4
_FEW = (
    *("copy", "renamed", "bf16", "int8", "int4", "prune-50", "depth-upscale", "lora-4", "fine-tuned", "partial-ff"),
    *("copy.t2", "copy.t-all", "copy.rotated", "copy.noise-0.5", "fine-tuned.t-all"),
)
SCALES = {
    "full": Scale(
        sizes={"d_model": 128, "n_layers": 4, "n_heads": 4, "d_ff": 352},
        vocab_size=4096,
        steps=300,
        batch_tokens=2048,
        n_siblings=19,
        references=("s00", "s01", "s02", "s03"),
        n_asked=2048,
    ),
    "small": Scale(
        sizes={"d_model": 64, "n_layers": 3, "n_heads": 4, "d_ff": 96},
        vocab_size=1000,
        steps=60,
        batch_tokens=1024,
        n_siblings=2,
        references=("s00",),
        n_asked=256,
        only=frozenset(_FEW),
        others=False,
    ),
}
SCALES["middle"] = Scale(  # everything there is, as small as the small one: to try the benchmark itself
    sizes=SCALES["small"].sizes,
    vocab_size=1000,
    steps=20,
    batch_tokens=1024,
    n_siblings=4,
    references=("s00", "s01"),
    n_asked=256,
)


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What is known of a model.

    Attributes:
        kin: Whether it has weights of its base, trained further or not.
        types: What was done, in the words of the audit.
        disguises: What was done to hide it, likewise.
        layer_map: The base's block of every block, or of every expert where a block has some; None: as they stand.
        weights: Of what was merged: parent -> weight.
        entangled: Other bases that it has something of.
    """

    kin: bool = True
    types: tuple[str, ...] = ()
    disguises: tuple[str, ...] = ()
    layer_map: tuple[int, ...] | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    entangled: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Item:
    """A model of the benchmark.

    Attributes:
        name: What it is called.
        group: ``sibling``, ``told seed``, ``other size``, ``other data``, ``GPT-2 style``, ``other length``;
            ``derivation``, ``attack``.
        label: The derivation or attack, without its strength.
        how: The function that makes it,
        values: and what that is told.
        base: The base that it goes back to; its own name for a base.
        on: What it was made from directly.
        needs: The models that must be there first.
        truth: What is known of it.
    """

    name: str
    group: str
    label: str
    how: str
    values: Mapping[str, Any] = field(default_factory=dict)
    base: str
    on: str = ""
    needs: tuple[str, ...] = ()
    truth: Truth = Truth()


def items_of(scale: Scale) -> list[Item]:
    """All models, bases first."""
    bases = list(_bases(scale))
    donor = f"s{scale.n_siblings:02d}"
    derived = [item for base in scale.references for item in (*_derived(base, donor, scale), *_attacks(base))]
    if scale.only is not None:
        derived = [item for item in derived if item.name.partition(".")[2] in scale.only]
    return [*bases, *derived]


def _base(name: str, group: str, **values: Any) -> Item:
    data = values.pop("data", "tang")
    return Item(name=name, group=group, label=group, how="base", values={"data": data, **values}, base=name)


def _bases(scale: Scale) -> Iterator[Item]:
    for number in range(scale.n_siblings + 1):
        yield _base(f"s{number:02d}", "sibling")
    if not scale.others:
        return
    for number, data in enumerate(("tang", "song", "song-2", "song-3")):
        yield _base(f"told-{number}", "told seed", data=data, seed=7)
    d_model, n_layers = scale.sizes["d_model"], scale.sizes["n_layers"]
    sizes = ({"d_model": d_model * 5 // 4}, {"d_model": d_model * 3 // 4}, {"n_layers": n_layers - 1})
    for number, changed in enumerate((*sizes, {"n_layers": n_layers + 2})):
        yield _base(f"size-{number}", "other size", sizes=changed)
    for number, data in enumerate(("song", "song-2", "song-3", "song")):
        yield _base(f"other-{number}", "other data", data=data, tokenizer="char-bpe")
    style = {"positions": "learned", "norm": "layer", "activation": "gelu-tanh", "bias": True}
    for number in range(2):
        yield _base(f"gpt2-{number}", "GPT-2 style", sizes=style)
    for factor in (0.25, 0.5, 2.0, 4.0):
        yield _base(f"long-{factor:g}", "other length", length=factor)


def _derived(base: str, donor: str, scale: Scale) -> Iterator[Item]:
    def item(name: str, label: str, how: str, *needs: str, truth: Truth, **values: Any) -> Item:
        on = (base, *(f"{base}.{need}" for need in needs))
        others = truth.entangled
        return Item(
            name=f"{base}.{name}",
            group="derivation",
            label=label,
            how=how,
            values=values,
            base=base,
            on=on[-1] if len(on) == 2 else base,
            needs=(*on, *others),
            truth=truth,
        )

    def of(*types: str, **known: Any) -> Truth:
        return Truth(types=types, **known)

    yield item("copy", "copy", "copy", truth=of("identical"))
    yield item("renamed", "renamed, re-sharded", "renamed", truth=of("repackaged"))
    yield item("bf16", "cast", "cast", truth=of("repackaged"), kind="bfloat16")
    for kind in ("int8", "int4", "fp8"):
        yield item(kind, "quantised", "quantised", truth=of("quantised"), kind=kind)
    for percent in (50, 70, 90):
        yield item(f"prune-{percent}", "pruned", "pruned", truth=of("pruned"), share=percent / 100)
    for percent in (25, 50):
        yield item(f"width-{percent}", "width pruned", "narrowed", truth=of("width changed"), share=percent / 100)
    n = scale.sizes["n_layers"]
    kept = (*range(n - 2), n - 1)
    yield item("depth-prune", "depth pruned", "restacked", truth=of("depth changed", layer_map=kept), blocks=kept)
    stack = (*range(n - 1), *range(1, n))
    yield item("depth-upscale", "depth upscaled", "restacked", truth=of("depth changed", layer_map=stack), blocks=stack)
    experts = tuple(block for block in range(n) for _ in range(_N_EXPERTS))
    upcycled = of("experts upcycled", layer_map=experts)
    yield item("upcycle", "experts upcycled", "upcycled", truth=upcycled, n_experts=_N_EXPERTS)
    for rank in (4, 16):
        yield item(f"lora-{rank}", "LoRA merged", "lora", truth=of("LoRA merged"), rank=rank, length=0.2, data="song")
    trained = of("trained further")
    yield item("fine-tuned", "fine-tuned", "tuned", truth=trained, length=0.2, data="song", rate=3e-4)
    for data, where in (("tang", "same"), ("song", "new")):
        for percent in (10, 50, 100, 200):
            length = percent / 100
            name, label = f"continued-{percent}-{where}", f"continued, {where} domain"
            yield item(name, label, "tuned", truth=trained, length=length, data=data, rate=2e-3)
    yield item("vocabulary", "vocabulary extended", "extended", truth=trained, n=128, length=0.1, data="song")
    yield from _merged(base, item)
    yield item("chain", "fine-tuned, merged, int4", "quantised", "linear-0.5", truth=of("quantised"), kind="int4")
    for kind in ("logit", "hard"):
        truth = Truth(kin=False, types=("distilled",))
        yield item(f"distilled-{kind}", f"distilled, {kind}", "distilled", truth=truth, kind=kind, length=1.0)
    for part in ("ff", "attention", "embeddings"):
        truth = of("partial", entangled=(donor,))
        yield item(f"partial-{part}", f"partial, {part}", "transplanted", truth=truth, part=part, donor=donor)


def _merged(base: str, item: Any) -> Iterator[Item]:
    two, three = ("fine-tuned", "continued-50-new"), ("fine-tuned", "continued-50-new", "continued-50-same")

    def merge(name: str, way: str, parents: tuple[str, ...], weights: tuple[float, ...]) -> Item:
        known = {f"{base}.{parent}": weight for parent, weight in zip(parents, weights, strict=True)}
        truth = Truth(types=("merged",), weights=known)
        made: Item = item(name, f"merged, {way}", "merged", *parents, truth=truth, way=way, weights=weights)
        return made

    for weight in (0.1, 0.3, 0.5, 0.7, 0.9):
        yield merge(f"linear-{weight:g}", "linear", two, (weight, round(1 - weight, 1)))
    for way in ("slerp", "ties"):
        yield merge(f"{way}-0.5", way, two, (0.5, 0.5))
    for way in ("linear", "ties"):
        yield merge(f"{way}-of-three", way, three, (0.5, 0.3, 0.2))


_PRESERVING: dict[str, tuple[str, tuple[str, ...]]] = {
    "t1": ("T1 channels permuted", ("rotated",)),
    "t2": ("T2 units permuted", ("reordered",)),
    "t3": ("T3 sequence rotated", ("rotated",)),
    "t4": ("T4 queries, keys rotated", ("heads turned",)),
    "t5": ("T5 gains replaced", ("rescaled",)),
    "t6": ("T6 units rescaled", ("rescaled",)),
    "t-all": ("T1 to T6 together", ("rotated", "reordered", "rescaled", "heads turned")),
    "rotated": ("Hadamard rotation, gains folded", ("rotated", "heads turned")),
    "reindexed": ("tokens re-indexed", ()),
}
"""Attack that changes no answer -> what it is called, and the disguises that an audit may name."""


def _attacks(base: str) -> Iterator[Item]:
    for suspect in ("copy", "fine-tuned", "continued-50-same"):
        on = f"{base}.{suspect}"
        plain = ("identical",) if suspect == "copy" else ("trained further",)

        def item(name: str, label: str, how: str, truth: Truth, on: str = on, **values: Any) -> Item:
            return Item(
                name=f"{on}.{name}",
                group="attack",
                label=label,
                how=how,
                values=values,
                base=base,
                on=on,
                needs=(base, on),
                truth=truth,
            )

        for name, (label, disguises) in _PRESERVING.items():
            yield item(name, label, "disguised", Truth(types=plain, disguises=disguises), way=name)
        trained = Truth(types=("trained further",))
        for amount in (0.1, 0.5, 1.0):
            noised = Truth(types=(*(each for each in plain if each != "identical"), "noise added"))
            yield item(f"noise-{amount:g}", f"noise, {amount:g} sd", "noised", noised, amount=amount)
        yield item("embeddings-anew", "token vectors learnt anew", "relearnt", trained, part="embeddings", length=0.5)
        yield item("ff-one-anew", "one feed-forward learnt anew", "relearnt", trained, part="one", length=0.5)
        yield item("ff-all-anew", "all feed-forwards learnt anew", "relearnt", trained, part="all", length=0.5)
        yield item("adversarial", "trained against the test", "adversarial", trained, length=0.5, most=1.05)
