from __future__ import annotations

import csv
import json

import pytest

from danlu.core.errors import DataError, UsageError
from danlu.improve.exchange import label_config, read_feedback, tasks_of, write_feedback, write_tasks
from danlu.improve.feedback import Feedback
from made_feedback import feedback_of

RECORDS = [
    feedback_of("r1", "user:u1", label="good", input="不错，\n很好", comment='是的, "真"的'),
    feedback_of("r1", "labeller:ann", correct=False, index=2, arm="challenger", experiment="e1", digest="d"),
    feedback_of(None, "import:f", text="-1 + x", input="=cmd|' /C calc'!A0"),
    feedback_of(None, "user:@u", rating=0.25, input="'quoted'"),
]


def whole(records) -> list[Feedback]:
    return [Feedback(**record) for record in records]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_what_is_written_is_read_back_as_it_was(tmp_path, kind):
    path = tmp_path / f"feedback.{kind}"
    events = [{**record, "time": 1.0, "event": "feedback", "asked": None} for record in RECORDS]
    n_kept = write_feedback(path, events, kind)
    assert read_feedback(path, "tiny") == whole(RECORDS)
    assert n_kept == (0 if kind == "jsonl" else 4)


def test_no_cell_of_a_csv_is_a_formula(tmp_path):
    path = tmp_path / "feedback.csv"
    texts = [f"{first}1+1" for first in "=+-@\t\r'"]
    write_feedback(path, [feedback_of(None, "user:a", label=text, input="x") for text in texts], "csv")
    with path.open(encoding="utf-8-sig", newline="") as file:
        cells = [row["label"] for row in csv.DictReader(file)]
    assert cells == [f"'{text}" for text in texts]
    assert [record.label for record in read_feedback(path, "tiny")] == texts


def test_apostrophes_of_other_peoples_files_are_theirs(tmp_path):
    path = tmp_path / "theirs.csv"
    path.write_text("input,label\n'tis good,good\n", encoding="utf-8")
    (record,) = read_feedback(path, "tiny")
    assert (record.input, record.label) == ("'tis good", "good")
    assert record.source.plain() == {"kind": "import", "id": "theirs.csv"}


def test_a_record_without_an_id_has_the_same_one_each_time_and_in_each_format(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"input": "不错", "label": "good"}\n\n', encoding="utf-8")
    (tmp_path / "b.csv").write_text("label,input\ngood,不错\n", encoding="utf-8-sig")
    (tmp_path / "c.jsonl").write_text(2 * '{"label": "good", "input": "不错", "name": "tiny"}\n', encoding="utf-8")
    ids = {read_feedback(tmp_path / name, "tiny")[0].id for name in ("a.jsonl", "b.csv", "c.jsonl")}
    assert len(ids) == 1
    assert len(read_feedback(tmp_path / "c.jsonl", "tiny")) == 1
    other = {"label": "good", "input": "不错", "source": {"kind": "labeller", "id": "ann"}}
    (tmp_path / "d.jsonl").write_text(json.dumps(other), encoding="utf-8")
    assert read_feedback(tmp_path / "d.jsonl", "tiny")[0].id not in ids


GOOD = '{"input": "不错", "label": "good"}'
SAME = '{"id": "1", "input": "不错", "label": "%s"}'


@pytest.mark.parametrize(
    ("name", "content", "where", "message"),
    [
        ("f.jsonl", f"{GOOD}\nno json\n", ":2", "not valid JSON"),
        ("f.jsonl", f"{GOOD}\n[1]\n", ":2", "an object is due"),
        ("f.jsonl", f"{GOOD}\n{{\"input\": \"x\"}}\n", ":2", "exactly one of"),
        ("f.jsonl", f"{GOOD}\n{{\"input\": \"x\", \"lable\": \"good\"}}\n", ":2", "unknown key 'lable'"),
        ("f.jsonl", f"{GOOD}\n{{\"input\": \"x\", \"rating\": NaN}}\n", ":2", "not a record"),
        ("f.jsonl", f"{GOOD}\n{{\"input\": \"\\ud800\", \"label\": \"a\"}}\n", ":2", "half of a surrogate"),
        ("f.jsonl", f"{GOOD}\n{{\"input\": \"x\", \"label\": \"a\", \"source\": \"me\"}}\n", ":2", "source"),
        ("f.jsonl", "[" * 100_000, ":1", "not valid JSON"),
        ("f.jsonl", f"{SAME % 'a'}\n{SAME % 'b'}\n", ":2", "say different things"),
        ("f.jsonl", '{"name": "other", "input": "x", "label": "a"}', ":1", "is about 'other'"),
        ("f.jsonl", "\n", "f.jsonl", "holds no record"),
        ("f.csv", "input,label\nx,good\ny\n", ":3", "another number of cells"),
        ("f.csv", "input,label\nx,good,more\n", ":2", "another number of cells"),
        ("f.csv", "input,lable\nx,good\n", ":1", "unknown column 'lable'"),
        ("f.csv", "input,label\nx,\n", ":2", "exactly one of"),
        ("f.csv", 'input,label\n"x,good\n', ":1", "not CSV"),
        ("f.csv", "input,rating\nx,much\n", ":2", "rating"),
        ("f.json", '{"data": {}}', "f.json", "a list of tasks"),
        ("f.json", '[{"text": "x", "label": "good"}]', "task 1", "not a task of an export"),
        ("f.json", '[{"data": {"text": "x"}, "annotations": [{"result": []}]}]', "task 1", "0 answers"),
        ("f.json", '[{"data": {"audio": "x"}, "annotations": []}]', "task 1", "neither a text nor an image"),
    ],
)  # fmt: skip
def test_a_bad_line_is_told_with_its_place_and_nothing_is_read(tmp_path, name, content, where, message):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message) as raised:
        read_feedback(path, "tiny")
    assert raised.value.where is not None
    assert where in raised.value.where


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(UsageError, match="cannot read"):
        read_feedback(tmp_path / "none.jsonl", "tiny")
    with pytest.raises(UsageError, match="format"):
        read_feedback(tmp_path / "none.xlsx", "tiny")
    (tmp_path / "gbk.csv").write_bytes("input,label\n不错,good\n".encode("gbk"))
    with pytest.raises(DataError, match="not UTF-8"):
        read_feedback(tmp_path / "gbk.csv", "tiny")


QUESTION = {
    "id": "q1", "name": "tiny", "request": "r1", "index": 0, "input": "不错", "digest": "d" * 64,
    "answer": {"label": "bad", "probability": 0.51}, "why": {"by": "margin", "value": 0.02},
}  # fmt: skip
ASKED = {"inputs": ["不错"], "answers": [{"label": "bad"}]}


def test_tasks_carry_the_models_answer_and_what_users_said_as_predictions():
    said = {**feedback_of("r1", "user:u1", label="good", digest="d" * 64), "asked": ASKED}
    (task,) = tasks_of([QUESTION, said], "text-classification")
    assert task["data"] == {"text": "不错"}
    assert "annotations" not in task  # what a user said is not a labeller's word
    model, user = task["predictions"]
    assert (model["model_version"], model["score"]) == ("d" * 12, 0.51)
    assert model["result"][0]["value"] == {"choices": ["bad"]}
    assert (user["model_version"], user["result"][0]["value"]) == ("user u1", {"choices": ["good"]})
    interface = label_config("text-classification", ["good", 'a "b" <c>'])
    assert '<Choice value="good"/>' in interface
    assert "&lt;c&gt;" in interface
    names = {part["from_name"] for each in task["predictions"] for part in each["result"]}
    assert all(f'name="{name}"' in interface for name in names)


@pytest.mark.parametrize(
    ("task", "answer", "result", "expected"),
    [
        ("text-classification", {"label": "a"}, {"type": "choices", "value": {"choices": ["b"]}}, ("label", "b")),
        ("image-classification", {"label": "0"}, {"type": "choices", "value": {"choices": ["1"]}}, ("label", "1")),
        ("translation", {"translation": "A"}, {"type": "textarea", "value": {"text": ["AB"]}}, ("text", "AB")),
    ],
)  # fmt: skip
def test_a_label_made_in_label_studio_answers_the_question(tmp_path, task, answer, result, expected):
    path = tmp_path / "tasks.json"
    write_tasks(path, tasks_of([{**QUESTION, "answer": answer}], task))
    exported = json.loads(path.read_text(encoding="utf-8"))
    exported[0]["annotations"] = [
        {"id": 1, "completed_by": {"id": 7, "email": "ann@example.org"}, "was_cancelled": False, "result": [result]},
        {"id": 2, "completed_by": 8, "was_cancelled": True, "result": []},
    ]
    exported.append({"data": {"text": "nobody labelled it"}, "annotations": []})
    path.write_text(json.dumps(exported), encoding="utf-8")
    (record,) = read_feedback(path, "tiny")
    assert (record.request, record.index, record.input, record.digest) == ("r1", 0, "不错", "d" * 64)
    assert record.source.plain() == {"kind": "labeller", "id": "ann@example.org"}
    assert getattr(record, expected[0]) == expected[1]
    assert read_feedback(path, "tiny")[0].id == record.id


def test_what_a_caller_sent_is_written_even_if_it_is_half_a_character(tmp_path):
    record = feedback_of(None, "user:a", label="good", input="half \ud800")
    for kind in ("jsonl", "csv"):
        write_feedback(tmp_path / f"f.{kind}", [record], kind)
        assert read_feedback(tmp_path / f"f.{kind}", "tiny")[0].input == "half \\ud800"
    write_tasks(tmp_path / "f.json", tasks_of([record], "text-classification"))
