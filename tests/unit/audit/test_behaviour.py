from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from danlu.audit.agreement import Agreement, calibrate
from danlu.audit.behaviour import Behaviour, Cast, Questions, Seen, cut, observe
from danlu.audit.data_order import DataOrderTest
from danlu.audit.siblings import SiblingTest, own_mistakes, rank_test
from danlu.audit.speaker import SpeakerTask
from danlu.core.progress import Silent
from danlu.data.batches import shuffled

N, N_WORDS = 400, 8
ASKED = tuple(f"question {number}" for number in range(N))
TRUTHS = tuple(chr(97 + number % N_WORDS) for number in range(N))


@dataclass
class Said:
    """A speaker that says what it was given."""

    said: Sequence[str]
    name: str = "somebody"
    task: SpeakerTask = "language-modelling"
    nats: Mapping[str, float] | str = "it does not tell"
    asked: list[int] = field(default_factory=list)

    def answers(self, questions: Sequence[str]) -> list[str]:
        assert len(questions) == len(self.said)
        return list(self.said)

    def losses(self, texts: Sequence[str], labels: Sequence[str] | None = None) -> npt.NDArray[np.float64] | str:
        assert labels is None
        self.asked.append(len(texts))
        return self.nats if isinstance(self.nats, str) else np.array([self.nats[text] for text in texts])


def answers(draw: np.random.Generator, right: float = 0.5) -> np.ndarray:
    """What a model of its own makes of the questions: right so often, else at random."""
    wrong = draw.choice(list("hijklmnop"), N)
    return np.where(draw.random(N) < right, np.array(TRUTHS), wrong)


def student(draw: np.random.Generator, teacher: np.ndarray, share: float) -> np.ndarray:
    return np.where(draw.random(N) < share, teacher, answers(draw))


def asked(cast: Cast, truths: Sequence[str | None] = TRUTHS, alpha: float = 1e-3) -> Behaviour:
    questions = Questions(asked=ASKED, truths=truths, source="held out")
    found, rows = observe(cast, "no order", questions, 100, alpha, Silent())
    assert len(rows) == N
    assert rows[0]["answers"]["suspect"] == cast.suspect.answers(ASKED)[0]
    return found


def cast_of(suspect: np.ndarray, family: Sequence[np.ndarray], controls: Sequence[np.ndarray] = ()) -> Cast:
    reference, *siblings = [Said(each.tolist()) for each in family]
    others = tuple(Said(each.tolist()) for each in controls)
    return Cast(suspect=Said(suspect.tolist()), reference=reference, siblings=tuple(siblings), controls=others)


def test_a_student_shares_the_mistakes_of_its_teacher_alone() -> None:
    draw = np.random.default_rng(1)
    family = [answers(draw) for _ in range(6)]
    found = asked(cast_of(student(draw, family[0], 0.4), family))
    assert isinstance(found.siblings, SiblingTest)
    assert found.siblings.p == 1 / 6
    assert "siblings by behaviour" in found.beyond
    assert found.exact == {"siblings by behaviour": 1 / 6}
    another = asked(cast_of(student(draw, family[3], 0.4), family))
    assert another.beyond == (), "a student of a sibling is no student of the reference"
    assert another.exact["siblings by behaviour"] > 1 / 6


def test_the_rank_among_siblings_is_uniform_for_the_innocent() -> None:
    """Ties count against conviction, and two siblings with few answers to choose from tie often."""
    draw = np.random.default_rng(2)
    p, beyond = [], 0
    for _ in range(300):
        family = [answers(draw) for _ in range(5)]
        found = asked(cast_of(answers(draw), family), alpha=0.01)
        p.append(found.exact["siblings by behaviour"])
        beyond += "siblings by behaviour" in found.beyond
    shares = [np.mean(np.array(p) <= rank / 5 + 1e-9) for rank in range(1, 5)]
    assert all(share <= rank / 5 + 0.06 for rank, share in enumerate(shares, 1))
    assert shares[0] > 0.1
    assert beyond <= 3


def test_few_siblings_must_be_left_far_behind() -> None:
    """Two that happen to be near each other show no spread: their own would convict one innocent in ten."""
    draw = np.random.default_rng(3)
    shares = 0.5 + 0.05 * draw.standard_normal((4000, 6))
    few = [calibrate(value, others, 100_000, 1e-3).beyond for value, *others in shares[:, :3]]
    more = [calibrate(value, others, 100_000, 1e-3).beyond for value, *others in shares]
    assert np.mean(few) < 2e-3
    assert np.mean(more) < 2e-3
    assert calibrate(0.9, (0.1, 0.12, 0.11, 0.12, 0.1), 500, 1e-3).beyond
    assert not calibrate(0.9, (0.1,), 500, 1e-3).beyond


def test_siblings_that_are_all_the_same_show_no_spread_and_convict_nobody() -> None:
    assert not calibrate(0.1, (0.0, 0.0), 40, 1e-3).beyond
    assert not calibrate(0.1, (0.0, 0.0, 0.0, 0.0, 0.0), 40, 1e-3).beyond
    assert calibrate(0.9, (0.0, 0.0, 0.0, 0.0, 0.0), 400, 1e-3).beyond


def test_a_student_of_a_reference_without_siblings_beats_every_control() -> None:
    draw = np.random.default_rng(4)
    reference, controls = answers(draw), [answers(draw) for _ in range(5)]
    found = asked(cast_of(student(draw, reference, 0.5), [reference], controls))
    assert isinstance(found.agreement, Agreement)
    assert found.agreement.p < 1e-3
    assert found.agreement.n_mistakes == sum(said != truth for said, truth in zip(reference, TRUTHS, strict=True))
    assert found.beyond == ("agreement",)
    assert found.exact == {}, "it proves nothing"
    assert "no siblings" in str(found.siblings)
    same = asked(cast_of(student(draw, reference, 0.5), [reference], [*controls, reference]))
    assert same.beyond == (), "one control that agrees as well is enough"
    without = asked(cast_of(student(draw, reference, 0.5), [reference], controls), truths=[None] * N)
    assert isinstance(without.agreement, Agreement)
    assert without.agreement.n_mistakes is None
    assert without.beyond == ("agreement",)


@pytest.mark.parametrize("right", [0.02, 0.5, 0.98])
def test_a_better_or_a_worse_model_is_no_student(right: float) -> None:
    """The better agrees with the reference where that is right, the worse shares mistakes because it makes many."""
    draw = np.random.default_rng(5)
    accused = 0
    for _ in range(40):
        controls = [answers(draw) for _ in range(5)]
        accused += bool(asked(cast_of(answers(draw, right), [answers(draw)], controls)).beyond)
    assert accused == 0


def test_against_one_control_p_is_that_of_mcnemar() -> None:
    draw = np.random.default_rng(6)
    reference, suspect, control = (answers(draw) for _ in range(3))
    found = asked(cast_of(suspect, [reference], [control]), truths=[None] * N).agreement
    assert isinstance(found, Agreement)
    more = int(((suspect == reference) & (control != reference)).sum())
    fewer = int(((suspect != reference) & (control == reference)).sum())
    assert found.p == pytest.approx(stats.binomtest(more, more + fewer, alternative="greater").pvalue)
    null = []
    for _ in range(300):
        one, two, three = (answers(draw) for _ in range(3))
        test = asked(cast_of(one, [two], [three]), truths=[None] * N).agreement
        assert isinstance(test, Agreement)
        null.append(test.p)
    assert np.mean(np.array(null) <= 0.05) <= 0.08


def test_tokens_of_different_lengths_are_compared_as_far_as_the_shortest_goes() -> None:
    words = np.array([f"{truth}xyz" for truth in TRUTHS])
    letters = np.array([word[0] for word in words])
    found = asked(cast_of(words, [letters], [np.array(["q"] * N)]), truths=[None] * N).agreement
    assert isinstance(found, Agreement)
    assert (found.value, found.controls) == (1.0, (0.0,))
    ends = np.array([""] * N)
    found = asked(cast_of(ends, [letters], [ends]), truths=[None] * N).agreement
    assert isinstance(found, Agreement)
    assert (found.value, found.controls) == (0.0, (0.0,)), "a text that ends is an answer of its own"


def test_a_numbering_that_follows_from_who_spoke_first_would_favour_the_reference() -> None:
    """Where most of the family are tied, the smallest number counts as what most say: it may not be the reference's."""
    swapped = []
    for family in ([np.array(["b", "a"] * (N // 2)), np.array(["a", "b"] * (N // 2))],):
        for order in (family, family[::-1]):
            test = asked(cast_of(np.array(["a"] * N), order)).siblings
            assert isinstance(test, SiblingTest)
            swapped.append((test.value, test.siblings[0]))
    assert swapped[0] == swapped[1][::-1]


def test_too_little_to_compare_is_said() -> None:
    draw = np.random.default_rng(7)
    one = answers(draw)
    found = asked(cast_of(one, [one, one], [one]))
    assert "answer 0 questions differently" in str(found.siblings)
    right = asked(cast_of(one, [np.array(TRUTHS)], [one]))
    assert "answers 0 questions wrongly" in str(right.agreement)
    nothing, rows = observe(cast_of(one, [one]), "no order", "no questions", 10, 1e-3, Silent())
    assert (nothing.data_order, nothing.siblings, nothing.agreement) == ("no order", "no questions", "no questions")
    assert rows == []


def test_the_order_of_data_takes_off_what_siblings_lose() -> None:
    draw = np.random.default_rng(8)
    texts = [f"{number} " + "x" * int(draw.integers(5, 60)) for number in range(500)] + ["twice", "twice"]
    lengths = np.array([len(text) for text in texts])
    epochs = [shuffled(lengths, 300, draw)]
    step = np.empty(len(texts))
    for number, rows in enumerate(epochs[0]):
        step[rows] = number / len(epochs[0])
    hard = dict(zip(texts, 20 * draw.standard_normal(len(texts)) + 2 * lengths, strict=True))
    seen = {text: hard[text] - 3 * step[row] + draw.standard_normal() for row, text in enumerate(texts)}
    cast = Cast(
        suspect=Said((), nats=seen),
        reference=Said((), nats=seen),
        siblings=(Said((), nats={text: each + 0.5 * draw.standard_normal() for text, each in hard.items()}), Said(())),
        controls=(Said((), nats=hard),),
    )
    order = Seen(epochs=epochs, rates=[1.0] * len(epochs[0]), moved="batches", texts=texts)
    found, rows = observe(cast, order, "no questions", 400, 1e-3, Silent())
    assert isinstance(found.data_order, DataOrderTest)
    assert found.data_order.p == 1 / 100_000
    assert (found.data_order.subtracted, found.data_order.n_subtracted) == ("siblings", 1)
    assert found.data_order.n == len(rows) == 400
    assert "twice" not in {row["text"] for row in rows}, "which of the two would be its place?"
    assert cast.reference.asked == [], "the reference follows from the order, and may not be taken off"
    assert cast.controls[0].asked == []
    innocent = Cast(suspect=Said((), nats=hard), reference=cast.reference)
    other, _ = observe(innocent, order, "no questions", 400, 1e-3, Silent())
    assert isinstance(other.data_order, DataOrderTest)
    assert other.data_order.p > 1e-3
    assert other.data_order.subtracted == "nothing"
    shortsighted = {text: nats if len(text) < 40 else np.nan for text, nats in seen.items()}
    some = Cast(suspect=Said((), nats=shortsighted), reference=cast.reference, siblings=cast.siblings)
    read, rows = observe(some, order, "no questions", 400, 1e-3, Silent())
    assert isinstance(read.data_order, DataOrderTest)
    assert read.data_order.n == len(rows) < 300
    assert read.data_order.p < 1e-3
    blind = Cast(suspect=Said((), nats=dict.fromkeys(seen, np.nan)), reference=cast.reference)
    assert "reads 0 of 400 texts whole" in str(observe(blind, order, "none", 400, 1e-3, Silent())[0].data_order)
    silent = Cast(suspect=Said(()), reference=cast.reference)
    assert observe(silent, order, "none", 400, 1e-3, Silent())[0].data_order == "it does not tell"


def test_texts_are_cut_once_each_and_the_same_way_every_time() -> None:
    texts = ["春眠不觉晓", "ab", "x", "春眠不觉晓", ""]
    asked_, truths = cut(texts, 10)
    assert (asked_, truths) == cut(texts, 10)
    assert sorted(a + b for a, b in zip(asked_, truths, strict=True)) == ["ab", "春眠不觉晓"]
    assert all([*asked_, *truths])
    assert len(cut(texts, 1)[0]) == 1


def test_who_shares_the_mistakes_of_one_is_nearest_to_that_one() -> None:
    draw = np.random.default_rng(2)
    truth = draw.integers(0, 50, 1000)
    family = np.stack([np.where(draw.random(1000) < 0.2, draw.integers(0, 50, 1000), truth) for _ in range(8)])
    pupil = np.where(draw.random(1000) < 0.5, family[0], truth)
    near = own_mistakes(pupil, family)
    assert near.argmax() == 0
    assert rank_test(near[0], near[1:].tolist(), "mistakes").p == 1 / 8
    assert rank_test(0.1, [0.1, 0.2, 0.05], "ties count against").p == 3 / 4
