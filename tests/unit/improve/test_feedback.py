from __future__ import annotations

import pytest
from pydantic import ValidationError

from danlu.improve.feedback import Feedback, complete, content_keys, input_of, joined, tally, writable
from made_feedback import feedback_of

USER = {"kind": "user", "id": "u1"}
ASKED = {"id": "r1", "inputs": ["不错", "很差"], "answers": [{"label": "good"}, {"label": "bad"}], "digest": "d"}
ASKED |= {"arm": "challenger", "experiment": "e"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "it has none"),
        ({"label": "good", "correct": True}, "it has correct and label"),
        ({"rating": 2}, "less than or equal to 1"),
        ({"rating": float("nan")}, "finite"),
        ({"label": 3}, "valid string"),
        ({"correct": "perhaps"}, "bool"),
        ({"label": "good", "request": None}, "about a request or brings its input"),
        ({"label": "good", "index": -1}, "greater than or equal to 0"),
        ({"label": "good", "arm": "third"}, "champion"),
        ({"label": "half \ud800"}, "half of a surrogate"),
        ({"label": "good", "source": {"kind": "robot", "id": "x"}}, "labeller"),
        ({"label": "good", "source": {"kind": "user", "id": ""}}, "at least 1"),
        ({"label": "good", "colour": "red"}, "extra"),
    ],
)
def test_a_record_says_one_thing_about_one_answer(values, message):
    whole = {"id": "1", "name": "tiny", "request": "r1", "source": USER} | values
    with pytest.raises(ValidationError, match=f"(?i){message}"):
        Feedback(**whole)


def test_a_record_takes_over_what_its_request_says():
    record = Feedback(id="1", name="tiny", request="r1", index=1, correct=False, source=USER)
    whole = complete(record, ASKED)
    told = (whole.digest, whole.arm, whole.experiment, whole.input)
    assert told == ("d", "challenger", "e", "很差")
    assert complete(record.model_copy(update={"digest": "other", "input": "x"}), ASKED).plain() == {
        **whole.plain(), "digest": "other", "input": "x",
    }  # fmt: skip
    assert complete(record, None) == record
    assert input_of({"index": 7, "asked": ASKED}) is None


def test_the_id_of_a_record_without_one_follows_from_what_it_says():
    said = {"name": "tiny", "input": "不错", "label": "good"}
    assert Feedback.key_of(said, None) == Feedback.key_of({**said, "comment": "!"}, None)
    others = [{**said, "label": "bad"}, {**said, "input": "很差"}, {**said, "name": "other"}]
    keys = {Feedback.key_of(each, None) for each in others} | {Feedback.key_of(said, USER), Feedback.key_of(said, None)}
    assert len(keys) == 5


def test_the_tally_counts_what_people_said():
    def said(source, **values):
        return {**feedback_of("r1", source, **values), "asked": ASKED, "input": None}

    records = [
        said("user:a", correct=True),
        said("user:a", label="good"),
        said("user:b", correct=False),
        said("labeller:ann", label="bad") | {"arm": "champion"},
        said("user:c", rating=0.5),
        said("user:d", label="good", index=1),
        {**feedback_of(None, "import:f", label="good", input="很 差"), "asked": None},
    ]
    found = tally(records)
    assert (found.n, found.right, found.wrong, found.corrected, found.labelled, found.rated) == (7, 2, 3, 2, 1, 1)
    assert found.by_kind == {"user": 5, "labeller": 1, "import": 1}
    assert found.by_source["user:a"] == 2
    assert found.by_arm == {"champion": 1}
    assert found.conflicts == 1  # 不错 is good and bad; 很差 is good twice
    assert tally([]).n == 0


def test_texts_are_the_same_whatever_their_width_case_and_white_space():
    assert len(set(content_keys(["Ａ b", "ab", " AB\n"]))) == 1
    assert content_keys(["a\ud800", "b"]) == ["a\\ud800", "b"]
    assert joined("\ud83d\ude00") == "😀"
    assert writable("a\ude00") == "a\\ude00"
