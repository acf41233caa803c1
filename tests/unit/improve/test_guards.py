from __future__ import annotations

from collections import Counter

import pytest

from danlu.core.progress import Silent
from danlu.core.workspace import Workspace
from danlu.data.clean import CleanConfig
from danlu.data.stage import DataConfig, build_dataset, read_split
from danlu.improve.guards import Known, balance_arms, limit_sources, rows_of, settle_conflicts
from danlu.improve.lessons import Guards, clean_rows, known_of, screen
from made_feedback import feedback_of, fresh
from small import make_dataset, write_csv

CLASSES = ("bad", "good")
ALL = Guards(quota=1.0, most=1000, held_out=0.0)
TEXTS = [text for text, _ in fresh(60)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("guards"))[1]


def about(text, **facts):
    """A request of one text that was answered ``good``."""
    return {"id": f"r-{text}", "inputs": [text], "answers": [{"label": "good", "probability": 0.9}], **facts}


def said(content, source, **values):
    """Feedback to a request of a text, as the index gives it."""
    record = feedback_of(f"r-{content}", source, **values)
    return {**record, "asked": about(content)}


def cleaned(feedback, dataset):
    return clean_rows(rows_of(feedback, "text-classification", CLASSES), dataset, "text-classification")


def screened(feedback, dataset, guards=ALL, **known):
    seen = known_of(dataset, "train", "text-classification")
    known = {"seen": seen, "base": seen, "named_gold": None} | known
    return screen(feedback, dataset, "text-classification", CLASSES, guards, **known)


def reasons(lessons_or_records):
    records = getattr(lessons_or_records, "records", lessons_or_records)
    return [reason for reason, _ in records.reasons_of(range(len(records)))]


def test_feedback_waits_in_quarantine_until_it_is_known_what_it_says_of_what(dataset):
    text = TEXTS[0]
    feedback = [
        said(text, "user:a", label="good"),
        {**feedback_of("gone", "user:a", label="good", input=TEXTS[1]), "asked": None},
        {**feedback_of("r", "user:a", label="good"), "asked": about(text, inputs=None)},
        {**feedback_of("r", "user:a", label="good", index=3), "asked": about(text)},
        {**feedback_of(None, "import:f", label="bad", input=TEXTS[2]), "asked": None},
        said(TEXTS[3], "user:a", rating=0.1),
        said(TEXTS[4], "user:a", correct=False),
        said(TEXTS[5], "user:a", text="a translation"),
        said(TEXTS[6], "user:a", correct=True),
        said(TEXTS[7], "user:a", label="other"),
        {**feedback_of(None, "user:a", label="good", input="half \ud83d of one"), "asked": None},
        {**feedback_of(None, "user:a", label="good", input="both \ud83d\ude00 halves of one"), "asked": None},
        {**feedback_of(None, "user:a", label="good", input=" \n"), "asked": None},
        {**feedback_of(None, "user:a", label="good", input="!?"), "asked": None},
    ]
    records = cleaned(feedback, dataset)
    assert reasons(records) == [
        *("", "unknown_request", "no_input", "no_input", "", "only_rated", "wrong_without_answer", "no_answer"),
        *("", "unknown_label", "half_surrogate", "", "empty", "no_text"),
    ]
    assert records.labels([6 + 2]) == ["good"]  # approval says that the answer given was right
    assert records.contents[10].as_py() == "half \\ud83d of one"
    assert records.contents[11].as_py() == "both 😀 halves of one"


def test_most_distinct_sources_decide_and_a_tie_drops_all(dataset):
    majority = [said(TEXTS[0], f"user:{who}", label="good") for who in "ab"]
    majority.append(said(f" {TEXTS[0]}", "user:c", label="bad"))  # the same text, but for white space
    one_shouts = [said(TEXTS[1], "user:a", label="bad") for _ in range(5)]
    one_shouts += [said(TEXTS[1], f"user:{who}", label="good") for who in "bc"]
    tie = [said(TEXTS[2], "user:a", label="bad"), said(TEXTS[2], "user:b", label="good")]
    records = cleaned(majority + one_shouts + tie, dataset)
    settle_conflicts(records, records.labels(range(len(records))))
    counts = Counter(zip(reasons(records), [*[0] * 3, *[1] * 7, *[2] * 2], strict=True))
    assert counts == {
        ("", 0): 1, ("repeated", 0): 1, ("outvoted", 0): 1,
        ("", 1): 1, ("repeated", 1): 1, ("outvoted", 1): 5,
        ("conflict", 2): 2,
    }  # fmt: skip
    assert set(records.labels(records.kept())) == {"good"}


def test_a_liar_who_repeats_honest_answers_knocks_none_of_them_out(dataset):
    honest = [said(text, f"user:{n % 12}", label="good") for n, text in enumerate(TEXTS[:48])]
    liar = [said(text, "user:liar", label="bad") for text in TEXTS[:48]]
    more = [said(text, "user:liar", label="bad") for text in TEXTS[48:56]]  # what nobody else answered
    lessons = screened([*honest, *liar, *more], dataset)
    found = reasons(lessons)
    assert found[:48] == [""] * 48
    assert set(found[48:]) == {"contradicted"}
    ((_, told),) = set(lessons.records.reasons_of(range(48, 104)))
    assert told == "12 of 12 others contradict user:liar, in 48 of 56 texts"


def test_a_labeller_outranks_any_number_of_users(dataset):
    feedback = [said(TEXTS[0], f"user:{who}", label="bad") for who in range(9)]
    feedback.append(said(TEXTS[0], "labeller:ann", label="good"))
    feedback.append(said(TEXTS[0], "user:z", label="good"))
    records = cleaned(feedback, dataset)
    settle_conflicts(records, records.labels(range(len(records))))
    assert records.kept().tolist() == [9]
    assert Counter(reasons(records)) == {"outvoted": 9, "repeated": 1, "": 1}
    two = [said(TEXTS[1], f"labeller:{who}", label=label) for who, label in (("ann", "bad"), ("bo", "good"))]
    records = cleaned([*two, *(said(TEXTS[1], f"user:{who}", label="good") for who in range(9))], dataset)
    settle_conflicts(records, records.labels(range(len(records))))
    assert set(reasons(records)) == {"conflict"}  # users do not settle what labellers disagree about


def test_what_agrees_counts_for_the_source_that_said_least(dataset):
    feedback = [said(text, "user:much", label="good") for text in TEXTS[:9]]
    feedback.append(said(TEXTS[0], "user:little", label="good"))
    records = cleaned(feedback, dataset)
    settle_conflicts(records, records.labels(range(len(records))))
    assert 9 in records.kept()
    assert 0 not in records.kept()


def test_no_user_makes_up_more_than_the_quota_or_the_number(dataset):
    feedback = [said(text, "user:flood", label="bad") for text in TEXTS[:40]]
    feedback += [said(text, f"user:{number}", label="good") for number, text in enumerate(TEXTS[40:56])]
    for quota, most, expected in ((0.2, 1000, 4), (0.5, 1000, 16), (1.0, 1000, 40), (1.0, 7, 7)):
        records = cleaned(feedback, dataset)
        limit_sources(records, quota, most)
        n_flood = sum(row < 40 for row in records.kept().tolist())
        assert n_flood == expected
        assert len(records.kept()) - n_flood == 16
        assert n_flood <= quota * len(records.kept())
    kept = records.kept().tolist()
    records = cleaned(feedback[::-1], dataset)
    limit_sources(records, 1.0, 7)
    assert sorted(55 - row for row in records.kept().tolist()) == kept  # whoever comes first has no better chance


def test_two_users_alone_cannot_fill_a_quota_of_a_fifth_and_labellers_and_files_have_none(dataset):
    two = [said(text, f"user:{number % 2}", label="good") for number, text in enumerate(TEXTS[:20])]
    records = cleaned(two, dataset)
    limit_sources(records, 0.2, 1000)
    assert Counter(reasons(records)) == {"quota": 20}
    for source in ("labeller:ann", "import:f"):
        records = cleaned([said(text, source, label="good") for text in TEXTS[:20]], dataset)
        limit_sources(records, 0.2, 5)
        assert len(records.kept()) == 20


def test_the_challengers_arm_is_never_learnt_from_alone(dataset):
    def in_arm(text, arm, experiment="e1"):
        return said(text, f"user:{text}", label="good") | {"arm": arm, "experiment": experiment}

    alone = [in_arm(text, "challenger") for text in TEXTS[:10]]
    records = cleaned(alone, dataset)
    balance_arms(records)
    assert Counter(reasons(records)) == {"challenger_only": 10}
    both = [*alone, *(in_arm(text, "champion") for text in TEXTS[10:13])]
    both += [in_arm(text, "champion", "e2") for text in TEXTS[13:30]]  # of another experiment: it balances nothing here
    records = cleaned(both, dataset)
    balance_arms(records)
    assert Counter(reasons(records)) == {"challenger_only": 7, "": 23}


def test_what_is_like_the_valid_test_or_gold_set_is_kept_out(dataset):
    test = read_split(dataset, "test", ["text", "label"]).to_pylist()
    valid = read_split(dataset, "valid", ["text"]).column("text").to_pylist()
    long = max(test, key=lambda row: len(row["text"]))["text"]
    gold = Known([b"x"], ["good"], None, ["gold"])
    feedback = [
        said(test[0]["text"], "user:a", label=test[0]["label"]),
        said(valid[0], "user:b", label="good"),
        said(f"{long}！", "user:c", label="good"),  # the same but for punctuation
        said(f"{long[:-1]}丁", "user:d", label="good"),
        said(TEXTS[0], "user:e", label="good"),
    ]
    found = screened(feedback, dataset, named_gold=gold)
    assert reasons(found) == ["leak", "leak", "leak", "leak", ""]
    assert found.records.reasons_of([0])[0][1] == "the same as one of test"


def test_near_duplicates_of_a_gold_set_of_pictures_or_of_a_file_are_kept_out(dataset):
    text = max(TEXTS, key=len)
    gold = cleaned([said(text, "labeller:g", label="good")], dataset)
    known = Known(gold.digests([0]), ["good"], gold.contents.combine_chunks(), ["gold"])
    found = screened([said(f"{text[:-1]}丁", "user:a", label="good")], dataset, named_gold=known)
    assert reasons(found) == ["leak"]
    assert "one of gold" in found.records.reasons_of([0])[0][1]


def test_the_training_data_are_corrected_by_labellers_alone(dataset):
    train = read_split(dataset, "train", ["text", "label"]).to_pylist()[:3]
    other = {"good": "bad", "bad": "good"}
    feedback = [
        said(train[0]["text"], "user:a", label=train[0]["label"]),
        said(train[1]["text"], "user:b", label=other[train[1]["label"]]),
        said(train[2]["text"], "labeller:ann", label=other[train[2]["label"]]),
    ]
    found = screened(feedback, dataset)
    assert reasons(found) == ["learnt", "contradicts_training", ""]
    assert list(found.corrected) == [2]


def test_a_fixed_share_of_what_labellers_labelled_is_held_out_and_never_what_was_trained_on(dataset):
    train = read_split(dataset, "train", ["text", "label"]).to_pylist()[:20]
    feedback = [said(text, "labeller:ann", label="good") for text in TEXTS]
    feedback += [said(row["text"], "labeller:ann", label=row["label"]) for row in train]
    feedback += [said(text + "丁", "user:a", label="good") for text in TEXTS[:5]]
    some, more = (screened(feedback, dataset, Guards(quota=1.0, most=99, held_out=share)) for share in (0.3, 0.6))
    assert 5 < len(some.gold) < len(more.gold) < 55
    assert set(some.gold.tolist()) < set(more.gold.tolist())  # a larger share holds the smaller one
    assert max(more.gold.tolist()) < len(TEXTS)
    all_of_them = screened(feedback, dataset, Guards(quota=1.0, most=99, held_out=0.999999))
    assert len(all_of_them.gold) == len(TEXTS)
    assert Counter(reasons(all_of_them)[80:]) == {"leak": 5}  # they are nearly the gold texts


def test_translations_are_voted_on_by_what_they_say(tmp_path):
    _, dataset = make_dataset(tmp_path, task="translation")
    text = TEXTS[0]
    feedback = [said(text, f"user:{who}", text=target) for who, target in enumerate(("ABC  d", "abc D", "XYZ"))]
    feedback += [said(TEXTS[1], "user:a", text=TEXTS[1]), said(TEXTS[2], "user:a", label="good")]
    seen = known_of(dataset, "train", "translation")
    found = screen(feedback, dataset, "translation", (), ALL, seen=seen, base=seen, named_gold=None)
    assert Counter(reasons(found)) == {"": 1, "repeated": 1, "outvoted": 1, "untranslated": 1, "no_answer": 1}
    row = found.records.kept().tolist()[0]
    assert found.records.table.column("target")[row].as_py() in ("ABC d", "abc D")


def test_it_is_cleaned_as_the_training_data_were(tmp_path):
    write_csv(tmp_path / "texts.csv", fresh(60, seed=3))
    clean = CleanConfig(min_chars=5, pii="drop")
    config = DataConfig(source="texts.csv", clean=clean, split={"valid": 0.2, "test": 0.2})
    strict = build_dataset(Workspace(tmp_path / "workspace"), "strict", config, tmp_path, Silent())
    feedback = [
        said("好的", "user:a", label="good"),
        said("我的邮箱是 someone@example.org，请联系", "user:a", label="good"),
        said("ｆｕｌｌ  width 文本很好", "user:a", label="good"),
    ]
    records = cleaned(feedback, strict)
    assert reasons(records) == ["too_short", "pii", ""]
    assert records.contents[2].as_py() == "full width 文本很好"
