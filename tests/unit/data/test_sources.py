"""Reading of files: every format, every record, every encoding, and what bad input says."""

from __future__ import annotations

import csv
import gzip
import json
import os
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from danlu.core.errors import DataError, UsageError
from danlu.data.formats import format_of
from danlu.data.sources import read_source, source_files

TEXT = {"text": "text"}
BOTH = {"text": "text", "label": "label"}


def rows(base: Path, spec: str | list[str], columns: dict[str, str] = TEXT, **options: int) -> list[dict[str, str]]:
    batches = read_source(spec, columns, base=base, samples=base / "none", **options)
    return [row for batch in batches for row in batch.to_pylist()]


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_txt_gives_each_line_its_number_and_blank_lines_a_problem(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "一行\r\n\n  \n最后")
    assert rows(tmp_path, "a.txt") == [
        {"source": "a.txt:1", "text": "一行", "problem": None},
        {"source": "a.txt:2", "text": "", "problem": "missing_value"},
        {"source": "a.txt:3", "text": "  ", "problem": "missing_value"},
        {"source": "a.txt:4", "text": "最后", "problem": None},
    ]


def test_only_line_feeds_end_a_line(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "a\u2028b\x0bc\x85d\n二")
    assert [row["text"] for row in rows(tmp_path, "a.txt")] == ["a\u2028b\x0bc\x85d", "二"]


ENCODED = [
    ("utf-8", b""),
    ("utf-8", b"\xef\xbb\xbf"),
    ("gb18030", b""),
    ("utf-16-le", b"\xff\xfe"),
    ("utf-16-be", b"\xfe\xff"),
]


@pytest.mark.parametrize(("encoding", "bom"), ENCODED)
def test_encodings_of_txt_csv_and_jsonl(tmp_path: Path, encoding: str, bom: bytes) -> None:
    texts = ["质量很差，退货了", "很好，下次还来", "𠮷野家 good"] * 40
    lines = [json.dumps({"text": text, "label": "甲"}, ensure_ascii=False) for text in texts]
    write(tmp_path / "a.txt", bom + "\n".join(texts).encode(encoding))
    write(tmp_path / "a.csv", bom + "\r\n".join(["text,label", *(f'"{t}",甲' for t in texts)]).encode(encoding))
    write(tmp_path / "a.jsonl", bom + "\n".join(lines).encode(encoding))
    assert [row["text"] for row in rows(tmp_path, "a.txt")] == texts
    for name in ("a.csv", "a.jsonl"):
        found = rows(tmp_path, name, BOTH)
        assert [(row["text"], row["label"], row["problem"]) for row in found] == [(text, "甲", None) for text in texts]


def test_an_undecodable_line_travels_with_its_problem(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", b"good line\n" * 20 + b"bad \xff\xfe\xfd line\n" + "好\n".encode() * 20)
    found = rows(tmp_path, "a.txt")
    assert len(found) == 41
    assert found[20]["source"] == "a.txt:21"
    assert found[20]["problem"] == "undecodable"
    assert found[20]["text"].startswith("bad ")
    assert {row["problem"] for row in found[:20] + found[21:]} == {None}


def test_utf_16_cut_in_a_character_is_undecodable_only_there(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", b"\xff\xfe" + "一\n二".encode("utf-16-le")[:-1])
    assert [row["problem"] for row in rows(tmp_path, "a.txt")] == [None, "undecodable"]


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_a_line_of_100_mb_is_clipped_in_bounded_memory(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with gzip.open(path, "wb", compresslevel=1) if name.endswith("gz") else path.open("wb") as file:
        file.write(b"first\n")
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write("\n最后\n".encode())
    tracemalloc.start()
    found = rows(tmp_path, name)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [(row["source"], row["problem"]) for row in found] == [
        (f"{name}:1", None),
        (f"{name}:2", "line_too_long"),
        (f"{name}:3", None),
    ]
    assert found[1]["text"] == "x" * 1000
    assert peak < 12_000_000


def test_a_line_of_exactly_the_limit_is_read_whole(tmp_path: Path) -> None:
    limit = 1 << 20
    write(tmp_path / "a.txt", b"s\n" + b"y" * limit + b"\n" + b"z" * (limit + 1) + b"\n" + b"e\n")
    found = rows(tmp_path, "a.txt")
    assert [(len(row["text"]), row["problem"]) for row in found] == [
        (1, None), (limit, None), (1000, "line_too_long"), (1, None),
    ]  # fmt: skip


def test_the_text_role_keeps_what_is_left_of_a_broken_record(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", '{"text": "a", "label": "x"}\nbroken\n')
    found = rows(tmp_path, "a.jsonl", {"label": "label", "text": "text"})
    assert found[1] == {"source": "a.jsonl:2", "text": "broken", "label": None, "problem": "bad_json"}


def test_csv_numbers_are_those_of_the_lines(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", 'id,text,label\n1,"two\nlines",x\n\n2,"say ""hi"", now",y\n')
    assert rows(tmp_path, "a.csv", BOTH) == [
        {"source": "a.csv:2", "text": "two\nlines", "label": "x", "problem": None},
        {"source": "a.csv:5", "text": 'say "hi", now', "label": "y", "problem": None},
    ]


def test_malformed_rows_do_not_take_good_ones_with_them(tmp_path: Path) -> None:
    lines = [
        "text,label", "a,1", '"open,1', "b,1", "too,many,fields", "few", '"x"y,1', "c,1", ",1", '"open again', "d,1",
    ]  # fmt: skip
    write(tmp_path / "a.csv", "\n".join(lines) + "\n")
    found = [(row["source"], row["text"], row["problem"]) for row in rows(tmp_path, "a.csv", BOTH)]
    assert found == [
        ("a.csv:2", "a", None),
        ("a.csv:3", '"open,1', "malformed_row"),
        ("a.csv:4", "b", None),
        ("a.csv:5", "too,many,fields", "malformed_row"),
        ("a.csv:6", "few", "malformed_row"),
        ("a.csv:7", '"x"y,1', "malformed_row"),
        ("a.csv:8", "c", None),
        ("a.csv:9", "", "missing_value"),
        ("a.csv:10", '"open again', "malformed_row"),
        ("a.csv:11", "d", None),
    ]


def test_a_csv_line_past_the_limit_and_a_long_field_under_it(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", f'text,label\n"{"x" * 2_000_000}",1\n{"y" * 500_000},2\nz,3\n')
    found = rows(tmp_path, "a.csv", BOTH)
    assert [(row["source"], len(row["text"]), row["problem"]) for row in found] == [
        ("a.csv:2", 1000, "line_too_long"), ("a.csv:3", 500_000, None), ("a.csv:4", 1, None),
    ]  # fmt: skip


FIELD = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r\0"), min_size=1, max_size=12)


@given(table=st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=20))
def test_what_the_csv_writer_writes_comes_back(tmp_path_factory: pytest.TempPathFactory, table: list) -> None:
    base = tmp_path_factory.mktemp("csv")
    for name, delimiter in (("a.csv", ","), ("a.tsv", "\t")):
        with (base / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *table])
        assert [(row["text"], row["label"]) for row in rows(base, name, BOTH)] == table


@given(content=st.binary(min_size=1, max_size=300))
def test_no_bytes_crash_a_reader_and_no_line_is_lost(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    base = tmp_path_factory.mktemp("any")
    write(base / "a.txt", b"start\n" + content)
    n_lines = len((b"start\n" + content).removesuffix(b"\n").split(b"\n"))
    assert len(rows(base, "a.txt")) == n_lines
    write(base / "a.csv", b"text,label\nstart,1\n" + content + b"\nend,1\n")
    found = rows(base, "a.csv", BOTH)
    assert found[0]["text"] == "start"
    write(base / "a.jsonl", b'{"text": "start"}\n' + content + b'\n{"text": "end"}\n')
    found = rows(base, "a.jsonl")
    assert (found[0]["text"], found[-1]["text"]) == ("start", "end")


def test_jsonl_values_and_problems(tmp_path: Path) -> None:
    lines = [
        '{"text": "a", "label": 1}', "not json", "", '[1]', '{"label": "x"}', '{"text": null, "label": true}',
        '{"text": ["a"], "label": 2}', '{"text": "\\ud83d", "label": 3}', '{"text": "\\ud83d\\ude00", "label": 1.5}',
        "[" * 100_000,
    ]  # fmt: skip
    write(tmp_path / "a.jsonl", "\n".join(lines))
    found = [(row["source"], row["text"], row["label"], row["problem"]) for row in rows(tmp_path, "a.jsonl", BOTH)]
    assert found == [
        ("a.jsonl:1", "a", "1", None),
        ("a.jsonl:2", "not json", None, "bad_json"),
        ("a.jsonl:4", "[1]", None, "bad_json"),
        ("a.jsonl:5", None, "x", "missing_value"),
        ("a.jsonl:6", None, "true", "missing_value"),
        ("a.jsonl:7", '["a"]', "2", "bad_value"),
        ("a.jsonl:8", "?", "3", "undecodable"),
        ("a.jsonl:9", "😀", "1.5", None),
        ("a.jsonl:10", "[" * 1000, None, "bad_json"),
    ]


def test_parquet_rows_types_and_nulls(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", None, "c" * 1_100_000], "label": pa.array([1, 2, 3]), "other": [[1], [2], [3]]})
    pq.write_table(table, tmp_path / "a.parquet")
    found = rows(tmp_path, "a.parquet", {"text": "text", "label": "label", "origin": "file"})
    assert [(row["source"], row["label"], row["origin"], row["problem"]) for row in found] == [
        ("a.parquet:1", "1", "a", None), ("a.parquet:2", "2", "a", "missing_value"),
        ("a.parquet:3", "3", "a", "line_too_long"),
    ]  # fmt: skip
    with pytest.raises(DataError, match="cannot be read as text columns"):
        rows(tmp_path, "a.parquet", {"text": "other"})


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_files_and_cut_ones(tmp_path: Path, suffix: str) -> None:
    plain = "".join(f"{i} 好 {os.urandom(20).hex()}\n" for i in range(20_000)).encode()
    whole = tmp_path / f"a.txt{suffix}"
    with pa.CompressedOutputStream(str(whole), "gzip" if suffix == ".gz" else "zstd") as stream:
        stream.write(plain)
    assert len(rows(tmp_path, whole.name)) == 20_000
    write(tmp_path / f"cut.txt{suffix}", whole.read_bytes()[:-5000])
    with pytest.raises(DataError, match="broken or cut short"):
        rows(tmp_path, f"cut.txt{suffix}")
    write(tmp_path / f"not.txt{suffix}", b"plain text")
    with pytest.raises(DataError, match="broken or cut short"):
        rows(tmp_path, f"not.txt{suffix}")


def test_labels_from_the_names_of_files_and_folders(tmp_path: Path) -> None:
    write(tmp_path / "data/good/pos.txt", "a\n")
    write(tmp_path / "data/bad/neg.txt.gz", gzip.compress(b"b\n"))
    write(tmp_path / "data/LICENSE", "left out")
    by_file = rows(tmp_path, "data", {"text": "text", "label": "file"})
    by_folder = rows(tmp_path, "data", {"text": "text", "label": "folder"})
    assert [(row["text"], row["label"]) for row in by_file] == [("b", "neg"), ("a", "pos")]
    assert [(row["source"], row["label"]) for row in by_folder] == [
        ("data/bad/neg.txt.gz:1", "bad"), ("data/good/pos.txt:1", "good"),
    ]  # fmt: skip


def test_globs_lists_and_order(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c/d.csv", "c/e.txt"):
        write(tmp_path / name, "text\nx\n")
    assert [path.name for path in source_files(["*.txt"], tmp_path)] == ["a.txt", "b.txt"]
    assert [path.name for path in source_files(["c/d.csv", "**/*.txt"], tmp_path)] == [
        "d.csv", "a.txt", "b.txt", "e.txt",
    ]  # fmt: skip
    assert [path.name for path in source_files([str(tmp_path / "c" / "*")], Path("elsewhere"))] == ["d.csv", "e.txt"]
    write(tmp_path / "odd[1].txt", "x")
    assert [path.name for path in source_files(["odd[1].txt"], tmp_path)] == ["odd[1].txt"]


def test_batches_are_cut_by_rows_and_by_size(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "x\n" * 25)
    batches = list(read_source("a.txt", TEXT, base=tmp_path, samples=tmp_path, batch_rows=10))
    assert [batch.num_rows for batch in batches] == [10, 10, 5]
    assert batches[0].schema == pa.schema([(name, pa.string()) for name in ("source", "text", "problem")])
    write(tmp_path / "b.txt", ("y" * 1_000_000 + "\n") * 40)
    assert max(batch.nbytes for batch in read_source("b.txt", TEXT, base=tmp_path, samples=tmp_path)) < 20_000_000


BAD_FILES = [
    ("a.txt", b"", "the file is empty", None),
    ("a.csv", b"", "the file is empty", None),
    ("a.parquet", b"", "the file is empty", None),
    ("a.csv", b"text\n", "holds no record", None),
    ("a.jsonl", b"\n\n", "holds no record", None),
    ("a.csv", b'"text\nx\n', "no readable header", None),
    ("a.csv", b"text,text\nx,y\n", "two columns have the same name", None),
    ("a.csv", b"txt,label\nx,y\n", "no column is called 'text'; the file has txt, label", "did you mean 'txt'?"),
    ("a.jsonl", b'{"txt": "x"}\n', "no column is called 'text'; the file has txt", "did you mean 'txt'?"),
    ("a.parquet", b"PAR1 not really", "cannot be read", None),
]


@pytest.mark.parametrize(("name", "content", "what", "advice"), BAD_FILES)
def test_unusable_files_say_why(tmp_path: Path, name: str, content: bytes, what: str, advice: str | None) -> None:
    write(tmp_path / name, content)
    with pytest.raises(DataError, match=what) as caught:
        rows(tmp_path, name)
    assert name in str(caught.value.where)
    assert advice is None or caught.value.advice == advice


BAD_SPECS = [
    ("reviews.csv", "no such file", "did you mean 'review.csv'?"),
    ("*.parquet", "no file matches", None),
    ("a.docx", "format is not known", None),
    ("empty", "no file that danlu reads", None),
    ("sample:zh-review", "no sample is called", "did you mean 'zh-reviews'?"),
    ("sample:mnist", "is files, not records", None),
]


@pytest.mark.parametrize(("spec", "what", "advice"), BAD_SPECS)
def test_unusable_specs_say_why(tmp_path: Path, spec: str, what: str, advice: str | None) -> None:
    write(tmp_path / "review.csv", "text\nx\n")
    write(tmp_path / "a.docx", "x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=what) as caught:
        rows(tmp_path, spec)
    assert advice is None or caught.value.advice == advice


def test_a_sample_that_is_not_fetched_says_how(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not on this machine yet") as caught:
        rows(tmp_path, "sample:zh-reviews")
    assert caught.value.advice == "danlu fetch zh-reviews"


def test_an_unreadable_file_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.txt", "x")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match="Permission denied"):
        rows(tmp_path, "a.txt")


def test_formats_by_suffix() -> None:
    names = ["a.txt", "a.csv.gz", "a.b.jsonl.zst", "a.parquet", "a.parquet.gz", "a.gz", "a.md", "txt"]
    kinds = [format_of(Path(name)) for name in names]
    assert kinds == ["txt", "csv", "jsonl", "parquet", None, None, None, None]
