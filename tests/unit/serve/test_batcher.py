from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from danlu.core.batch import Batch
from danlu.data.clean import standard_texts
from danlu.model.decode import DecodeConfig, Generated, generate, prompt_batch
from danlu.model.decoding.engine import quick
from danlu.serve import batcher
from danlu.serve.answering import batchers_of
from danlu.serve.batcher import Continuous, Gathering, InputError, Kind
from danlu.serve.config import ServeConfig
from made_serving import made_predictor

PROMPTS = ["好", "这个很好，我", "", "差烂坏假脏慢", "的了我这个买很就", "买", "我我我我我我我我我我我", "在到有和也"]
WAYS: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {"temperature": 1.0, "seed": 7},
    {"temperature": 0.7, "seed": 1, "top_k": 5},
    {"temperature": 1.3, "seed": 2, "top_p": 0.8},
    {"temperature": 0.0, "repetition_penalty": 1.5},
    {"temperature": 1.0, "seed": 3, "min_p": 0.1, "repetition_penalty": 1.2},
]


def written(number: int, prompt: str, n: int = 1, **changes: Any) -> dict[str, Any]:
    """A request."""
    way = WAYS[number % len(WAYS)] if "decode" not in changes else changes.pop("decode")
    decode = DecodeConfig(**{"max_new_tokens": 5 + 3 * number, **way}).plain()
    asked = {"id": number, "kind": "write", "prompts": [prompt], "decode": decode, "n": n, "max_tokens": None}
    return asked | {"echo": False, "logprobs": None, "stream": False} | changes


def finished(replies: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    return {reply["id"]: reply["done"] for reply in replies if "done" in reply}


def alone(predictor: Any, request: dict[str, Any]) -> list[Generated]:
    """What the decoder writes for a request by itself."""
    model = predictor.answerer
    (prompt,) = standard_texts(request["prompts"], predictor.clean)
    begun = [model.special.begin, *model.tokenizer.encode(prompt).ids]
    batch: Batch = prompt_batch([begun] * request["n"], model.special.begin)
    config = DecodeConfig(**request["decode"])
    return generate(quick(model.module), model.tokenizer, batch, config, [model.special.end])


FAMILIES = [("gpt", {}), ("gpt", {"n_kv_heads": 1, "positions": "learned", "norm": "layer"}), ("gru", {})]


@pytest.mark.parametrize(("family", "changes"), FAMILIES, ids=str)
@pytest.mark.parametrize("streams", [3, 8])
def test_texts_that_come_and_go_are_those_that_each_request_would_get_alone(family, changes, streams) -> None:
    predictor = made_predictor("language-modelling", family, **changes)
    writing = batchers_of(predictor, ServeConfig(streams=streams))["write"]
    requests = [written(number, PROMPTS[number % len(PROMPTS)], n=1 + number % 3) for number in range(20)]
    done: dict[int, dict[str, Any]] = {}
    waiting = list(requests)
    while waiting or writing.busy:
        for request in [waiting.pop(0) for _ in range(min(2, len(waiting)))]:
            writing.add(request)
        done |= finished(writing.step())
    for request in requests:
        expected = alone(predictor, request)
        found = done[request["id"]]
        assert [text["text"] for text in found["texts"]] == [text.text for text in expected]
        assert [text["ended"] == "length" for text in found["texts"]] == [text.ended == "length" for text in expected]
        assert found["completion_tokens"] == sum(len(text.tokens) for text in expected)


def test_a_model_that_has_no_quick_form_writes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = made_predictor("language-modelling")
    monkeypatch.setattr("danlu.serve.answering.quick", lambda model: model)
    writing = batchers_of(predictor, ServeConfig(streams=3))["write"]
    requests = [written(number, PROMPTS[number]) for number in range(7)]
    done: dict[int, dict[str, Any]] = {}
    for request in requests:
        writing.add(request)
    while writing.busy:
        done |= finished(writing.step())
    for request in requests:
        assert done[request["id"]]["texts"][0]["text"] == alone(predictor, request)[0].text


def test_a_short_text_does_not_wait_for_a_long_one() -> None:
    writing = batchers_of(made_predictor("language-modelling", max_len=256), ServeConfig(streams=2))["write"]
    writing.add(written(0, "好", decode={"max_new_tokens": 200, "temperature": 1.0, "seed": 5}))
    for _ in range(3):
        assert finished(writing.step()) == {}
    writing.add(written(1, "差", decode={"max_new_tokens": 2}))
    steps = 0
    while 1 not in finished(writing.step()):
        steps += 1
    assert steps <= 2
    assert writing.busy


def test_who_leaves_gives_up_the_place() -> None:
    predictor = made_predictor("language-modelling", max_len=128)
    writing = cast("Continuous", batchers_of(predictor, ServeConfig(streams=2))["write"])
    requests = [written(number, PROMPTS[number], decode={"max_new_tokens": 60, "seed": 9, "temperature": 1.0})
                for number in range(3)]  # fmt: skip
    for request in requests:
        writing.add(request)
    writing.step()
    writing.cancel(0)
    writing.cancel(77)
    done: dict[int, dict[str, Any]] = {}
    while writing.busy:
        done |= finished(writing.step())
    assert sorted(done) == [1, 2]
    for request in requests[1:]:
        assert done[request["id"]]["texts"][0]["text"] == alone(predictor, request)[0].text


def test_streamed_parts_make_up_the_text_with_stop_strings_and_probabilities() -> None:
    predictor = made_predictor("language-modelling")
    decode = {"max_new_tokens": 12, "temperature": 1.0}
    tried = (alone(predictor, written(0, "好", decode=decode | {"seed": seed}))[0] for seed in range(60))
    seed, plain = next(
        (seed, text) for seed, text in enumerate(tried) if len(text.text) > 8 and "\ufffd" not in text.text
    )
    stop = plain.text[6:8]
    decode |= {"seed": seed, "stop": [stop]}
    texts, told = [], []
    for stream in (False, True):
        writing = batchers_of(predictor, ServeConfig(streams=2))["write"]
        writing.add(written(0, "好", decode=decode, stream=stream, logprobs=2))
        replies = []
        while writing.busy:
            replies += writing.step()
        parts = [part for reply in replies for part in reply.get("parts", [])] or replies[-1]["done"]["texts"]
        assert len(parts) > 1 or not stream
        texts.append("".join(part["text"] for part in parts))
        told.append([entry for part in parts for entry in part["tokens"]])
        assert parts[-1]["ended"] == "stop"
    assert texts[0] == texts[1] == plain.text[: plain.text.index(stop)]
    assert told[0] == told[1]
    assert b"".join(bytes(entry["bytes"]) for entry in told[0]).decode() == texts[0]
    for entry in told[0]:  # a special token has a name and spells nothing
        assert texts[0][entry["offset"] :].startswith(entry["token"]) or entry["bytes"] == []
    for entry, logprob in zip(told[0], plain.logprobs, strict=False):
        assert entry["logprob"] == pytest.approx(logprob, abs=1e-5)
        assert len(entry["top"]) == 2
        assert entry["top"][0][2] >= entry["top"][1][2]


@torch.no_grad()
def test_an_echoed_prompt_costs_what_the_model_says() -> None:
    predictor = made_predictor("language-modelling")
    writing = batchers_of(predictor, ServeConfig(streams=2))["write"]
    text = "这个很好我买"
    writing.add(written(0, text, max_tokens=0, echo=True, logprobs=1))
    (text_0,) = finished(writing.step())[0]["texts"]
    assert (text_0["text"], text_0["ended"]) == (text, "length")
    entries = text_0["tokens"]
    assert entries[0]["logprob"] is None
    assert "".join(entry["token"] for entry in entries) == text
    whole = predictor.nats([text])[0]
    model = predictor.answerer
    logits_BV, _ = model.module.begin(prompt_batch([[model.special.begin]], 0), 1)
    first = float(logits_BV.log_softmax(1)[0, model.tokenizer.token_to_id(text[0])])
    batch = prompt_batch([[model.special.begin, *model.tokenizer.encode(text).ids]], 0)
    last = float(model.module(batch).logits[0, -1].log_softmax(0)[model.special.end])
    assert -sum(entry["logprob"] for entry in entries[1:]) == pytest.approx(whole + first + last, abs=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": ["好" * 40]}, "the model sees 32 tokens; the prompt has 41 tokens"),
        ({"max_tokens": 30}, "has 4 tokens and 30 tokens after it"),
        ({"prompts": ["好", [9999]]}, "token ids"),
        ({"prompts": [[]]}, "token ids"),
    ],
)
def test_what_cannot_be_written_is_refused(changes: dict[str, Any], message: str) -> None:
    writing = batchers_of(made_predictor("language-modelling"), ServeConfig(streams=2))["write"]
    with pytest.raises(InputError, match=message) as refused:
        writing.add(written(0, "好好好") | changes)
    assert refused.value.facts["param"].startswith("prompt")
    assert not writing.busy


def test_prompts_may_be_limited_to_less_than_the_model_sees() -> None:
    config = ServeConfig(streams=2, limits={"prompt_tokens": 5})
    writing = batchers_of(made_predictor("language-modelling"), config)["write"]
    writing.add(written(0, "好好好好"))
    with pytest.raises(InputError, match="may have 5 tokens here; this one has 6"):
        writing.add(written(1, "好好好好好"))


def counted(size: int, wait: float = 0.0) -> tuple[Gathering, list[list[int]]]:
    """A batcher that doubles numbers and remembers its batches."""
    batches: list[list[int]] = []

    def prepare(given: Any) -> int:
        if not isinstance(given, int):
            raise InputError("invalid_value", "no number")
        return given

    def answer(numbers: Any) -> list[int]:
        batches.append(list(numbers))
        return [2 * number for number in numbers]

    return Gathering({"double": Kind(prepare, answer)}, size, wait), batches


def test_requests_share_batches_and_take_turns() -> None:
    gathering, batches = counted(4)
    gathering.add({"id": 1, "kind": "double", "inputs": list(range(10))})
    gathering.add({"id": 2, "kind": "double", "inputs": [100]})
    gathering.add({"id": 3, "kind": "double", "inputs": [200, 201]})
    done: dict[int, Any] = {}
    order = []
    while gathering.busy:
        found = finished(gathering.step())
        order += list(found)
        done |= found
    assert order == [2, 3, 1]
    assert batches[0] == [0, 100, 200, 1]
    assert done[1]["results"] == [2 * number for number in range(10)]
    assert done[3]["results"] == [400, 402]


def test_one_bad_input_spoils_no_other_request() -> None:
    gathering, _ = counted(4)
    with pytest.raises(InputError) as refused:
        gathering.add({"id": 1, "kind": "double", "inputs": [1, "x"]})
    assert refused.value.facts["param"] == "inputs[1]"
    gathering.add({"id": 2, "kind": "double", "inputs": [1]})
    gathering.add({"id": 3, "kind": "double", "inputs": [2]})
    gathering.cancel(3)
    assert list(finished(gathering.step())) == [2]
    assert not gathering.busy


def test_a_batch_waits_only_as_long_as_it_was_told_to_and_not_when_it_is_full() -> None:
    gathering, _ = counted(2, wait=0.5)
    assert gathering.patience == 0
    gathering.add({"id": 1, "kind": "double", "inputs": [1]})
    assert 0.3 < gathering.patience <= 0.5
    gathering.add({"id": 2, "kind": "double", "inputs": [1]})
    assert gathering.patience == 0


@pytest.mark.parametrize("family", ["bert", "gru"])
def test_classes_in_a_batch_are_those_alone(family: str) -> None:
    predictor = made_predictor("text-classification", family)
    asking = batchers_of(predictor, ServeConfig())["predict"]
    texts = [*PROMPTS, "好" * 60]
    for number, text in enumerate(texts):
        asking.add({"id": number, "kind": "predict", "inputs": [text]})
    together = finished(asking.step())
    assert len(together) == len(texts)
    for number, text in enumerate(texts):
        asking.add({"id": number, "kind": "predict", "inputs": [text]})
        found = finished(asking.step())[number]["results"][0]
        assert found["label"] == together[number]["results"][0]["label"]
        assert found["probability"] == pytest.approx(together[number]["results"][0]["probability"], abs=2e-6)
        assert found["label"] == predictor.classes[int(predictor.predict_proba([text]).argmax())]


@pytest.mark.parametrize(("task", "family"), [("text-classification", "bert"), ("language-modelling", "gpt")])
def test_vectors_have_length_one_and_do_not_depend_on_the_batch(task: Any, family: str) -> None:
    asking = batchers_of(made_predictor(task, family), ServeConfig())["embed"]
    asking.add({"id": 1, "kind": "embed", "inputs": PROMPTS})
    together = finished(asking.step())[1]["results"]
    for text, found in zip(PROMPTS, together, strict=True):
        asking.add({"id": 2, "kind": "embed", "inputs": [text]})
        (single,) = finished(asking.step())[2]["results"]
        torch.testing.assert_close(torch.tensor(found["vector"]), torch.tensor(single["vector"]), atol=1e-5, rtol=0)
        assert sum(value**2 for value in single["vector"]) == pytest.approx(1.0, abs=1e-5) or not text
    with pytest.raises(InputError, match="sees 32 tokens"):
        asking.add({"id": 3, "kind": "embed", "inputs": ["好" * 60]})


def failing(bad: int, error: Exception, size: int = 8) -> tuple[Gathering, list[list[int]]]:
    """A batcher that doubles numbers and fails at every batch with a bad one in it."""
    batches: list[list[int]] = []

    def answer(numbers: Any) -> list[int]:
        batches.append(list(numbers))
        if bad in numbers:
            raise error
        return [2 * number for number in numbers]

    return Gathering({"double": Kind(int, answer)}, size, 0.0), batches


def test_a_batch_that_fails_is_asked_again_request_by_request(capsys: pytest.CaptureFixture[str]) -> None:
    gathering, batches = failing(13, ZeroDivisionError("a bug"))
    for number, inputs in enumerate([[1, 2], [3, 13, 4], [5]]):
        gathering.add({"id": number, "kind": "double", "inputs": inputs})
    replies = gathering.step()
    assert not gathering.busy
    assert {reply["id"]: reply["done"]["results"] for reply in replies if "done" in reply} == {0: [2, 4], 2: [10]}
    (failed,) = [reply for reply in replies if "error" in reply]
    assert (failed["id"], failed["error"]["code"], failed["error"]["status"]) == (1, "answer_failed", 503)
    assert batches == [[1, 3, 5, 2, 13, 4], [1, 2], [3, 13, 4], [5]]
    assert "a bug" in capsys.readouterr().err
    assert "a bug" not in str(replies), "what went wrong inside is nobody's business outside"


def test_a_large_request_that_fails_in_a_later_batch_is_dropped_as_a_whole() -> None:
    gathering, _ = failing(13, KeyError("x"), size=2)
    gathering.add({"id": 1, "kind": "double", "inputs": [1, 2, 3, 13, 5, 6]})
    gathering.add({"id": 2, "kind": "double", "inputs": [7, 8, 9]})
    replies: list[dict[str, Any]] = []
    while gathering.busy:
        replies += gathering.step()
    assert finished(replies)[2]["results"] == [14, 16, 18]
    assert [reply["id"] for reply in replies if "error" in reply] == [1]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        torch.AcceleratorError("CUDA error: an illegal memory access"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."),
    ],
)
def test_nothing_goes_on_after_memory_ran_out_or_a_device_was_lost(error: Exception) -> None:
    gathering, _ = failing(13, error)
    gathering.add({"id": 1, "kind": "double", "inputs": [13]})
    with pytest.raises(type(error)):
        gathering.step()
    writing = cast("Continuous", batchers_of(made_predictor("language-modelling"), ServeConfig(streams=2))["write"])
    writing.add(written(0, "好"))
    writing.step()
    writing._slots.advance = lambda _: (_ for _ in ()).throw(error)
    with pytest.raises(type(error)):
        writing.step()


def test_prompts_that_wait_are_read_together_and_the_first_tokens_come_with_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writing = cast("Continuous", batchers_of(made_predictor("language-modelling"), ServeConfig(streams=8))["write"])
    read, prompts_read = writing._slots.read, []

    def counted(prompts: list[list[int]]) -> Any:
        prompts_read.append(len(prompts))
        return read(prompts)

    monkeypatch.setattr(writing._slots, "read", counted)
    for number in range(3):
        writing.add(written(number, PROMPTS[number], n=2, stream=True))
    first = writing.step()
    assert prompts_read == [3]
    assert sorted(reply["id"] for reply in first) == [0, 1, 2]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("family", ["gpt", "gru"])
def test_texts_whose_batch_fails_go_on_each_by_itself(
    monkeypatch: pytest.MonkeyPatch, family: str, stream: bool
) -> None:
    predictor = made_predictor("language-modelling", family)
    writing = cast("Continuous", batchers_of(predictor, ServeConfig(streams=4))["write"])
    requests = [written(number, PROMPTS[number], n=1 + number % 2, stream=stream) for number in range(7)]
    n_failed = 0
    advance = writing._slots.advance

    def sometimes(tokens: list[int]) -> torch.Tensor:
        nonlocal n_failed
        if len(tokens) > 1 and n_failed < 5:
            n_failed += 1
            advance(tokens)  # what is kept of the texts has changed when the error comes
            raise RuntimeError("a bug")
        return advance(tokens)

    monkeypatch.setattr(writing._slots, "advance", sometimes)
    for request in requests:
        writing.add(request)
    texts: dict[tuple[int, int], str] = {}
    while writing.busy:
        for reply in writing.step():
            assert "error" not in reply
            for part in reply.get("parts", reply.get("done", {}).get("texts", [])):
                place = (reply["id"], part["index"])
                texts[place] = texts.get(place, "") + part["text"]
    assert n_failed == 5
    for request in requests:
        found = [texts[request["id"], copy] for copy in range(request["n"])]
        assert found == [text.text for text in alone(predictor, request)]


def test_only_the_text_at_which_the_model_fails_gets_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = made_predictor("language-modelling")
    writing = cast("Continuous", batchers_of(predictor, ServeConfig(streams=4))["write"])
    requests = [written(number, PROMPTS[number]) for number in range(5)]
    read, choose = writing._slots.read, batcher.choose

    def unreadable(prompts: list[list[int]]) -> Any:
        if any(len(prompt) == 1 for prompt in prompts):  # the empty text
            raise IndexError("a bug")
        return read(prompts)

    def undecided(texts: Any, logits_BV: torch.Tensor) -> Any:
        if any(text.order.id == 3 and len(text.tokens) == 2 for text in texts):
            raise ValueError("another bug")
        return choose(texts, logits_BV)

    monkeypatch.setattr(writing._slots, "read", unreadable)
    monkeypatch.setattr(batcher, "choose", undecided)
    for request in requests:
        writing.add(request)
    replies: list[dict[str, Any]] = []
    while writing.busy:
        replies += writing.step()
    assert sorted(reply["id"] for reply in replies if "error" in reply) == [2, 3]
    done = finished(replies)
    assert sorted(done) == [0, 1, 4]
    for number in done:
        assert done[number]["texts"][0]["text"] == alone(predictor, requests[number])[0].text


@pytest.mark.parametrize(("task", "sees"), [("text-classification", 32), ("translation", 31)])
def test_a_text_that_is_cut_says_so(task: Any, sees: int) -> None:
    asking = batchers_of(made_predictor(task), ServeConfig())["predict"]
    lengths = [0, 5, sees, sees + 1, 60]
    asking.add({"id": 1, "kind": "predict", "inputs": ["好" * length for length in lengths]})
    found = finished(asking.step())[1]["results"]
    assert [each["n_tokens"] for each in found] == lengths
    assert [each["truncated"] for each in found] == [False, False, False, True, True]
