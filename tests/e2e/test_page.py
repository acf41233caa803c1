"""The page in Chromium: what people see and do with mouse, finger and keys, in both languages and both colours."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

import page_server
from danlu import board as danlu_board
from danlu.core.events import EventLog
from danlu.core.files import write_json
from danlu.core.workspace import Workspace
from danlu.explain import gradients
from danlu.explain.pictures import shares_of_picture
from danlu.explain.texts import shares_of_text
from danlu.improve.trial import told_of
from danlu.improving import _called
from danlu.model.base import Task
from danlu.model.ensemble import Ensemble
from danlu.model.pixels import PixelConfig, PixelLogisticRegression
from danlu.model.tfidf import TfidfConfig, TfidfLogisticRegression
from danlu.pipeline import Gate, Job
from danlu.promoting import promote
from danlu.report.metrics import METRICS
from danlu.report.terms import FAMILIES
from made_serving import made_predictor, make_served
from made_trial import NAME, Traffic, compared, made_model
from page_server import ASSETS, FakeServer, board, faking
from served import serving
from small import made_up

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.xdist_group("page"),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is missing: apt-get install chromium, then test again"),
]
TEXT = "The screen is bright, but the battery is gone by noon. 屏幕很亮👍但电池不行"
HOSTILE = '<img src=x onerror="window.bad=1"><script>window.bad=1</script><b>not bold</b>'
SERVED: dict[str, Task] = {
    "reviews": "text-classification",
    "digits": "image-classification",
    "ui": "translation",
    "poems": "language-modelling",
}
PHONE = {"width": 360, "height": 740}

RULES = Path(__file__).with_name("page_rules.js")
"""What every state of the page owes, looked at from within."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=20_000)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"] * (os.geteuid() == 0))
        yield started
        started.close()


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with faking() as started:
        yield started


@contextmanager
def opened(
    browser: Browser, fake: FakeServer, model: str | None = None, fails: str = "$.", **look: Any
) -> Iterator[Page]:
    """The page, watched: no error in its console but those of expected failures, no other origin, no broken policy."""
    said: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not re.search(fails, message.text):
            said.append(message.text)

    context = browser.new_context(**{"locale": "en-GB", "viewport": {"width": 1180, "height": 900}, **look})
    context.set_default_timeout(20_000)
    page = context.new_page()
    page.on("console", hear)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if not request.url.startswith(fake.address) else None)
    page.add_init_script(
        "addEventListener('securitypolicyviolation', (e) => console.error('policy', e.violatedDirective))"
    )
    page.goto(fake.address)
    if fake.key is None:
        expect(page.locator("#which")).to_be_visible()
        if model:
            page.select_option("#model", model)
    yield page
    page.wait_for_timeout(50)
    assert said == []
    context.close()


def check(page: Page) -> None:
    """Names of controls, contrast, both languages, no scrolling sideways."""
    found = page.evaluate(RULES.read_text(encoding="utf-8"))
    assert found == []


def ask(page: Page, text: str) -> None:
    page.get_by_role("textbox").first.fill(text)
    page.locator("form button[type=submit].main").first.click()


def picture(sent: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(sent))).convert("L"))


def test_a_text_is_classified_explained_judged_and_corrected(browser: Browser, fake: FakeServer) -> None:
    with opened(browser, fake) as page:
        ask(page, TEXT)
        answer = page.get_by_role("region", name="Answer")
        expect(answer.locator(".said")).to_have_text("positive 93.1%")
        rows = answer.locator(".bars tbody tr")
        assert [row.split() for row in rows.all_inner_texts()] == [["positive", "93.1%"], ["negative", "6.9%"]]
        wide = [row.locator(".bar").bounding_box()["width"] for row in rows.all()]  # type: ignore[index]
        assert wide[1] / wide[0] == pytest.approx(0.0688 / 0.9312, abs=0.02)
        expect(page.locator("form [role=status]")).to_have_text("positive, 93.1%")  # read out
        shaded = answer.locator(".shaded")
        expect(shaded).to_have_text(TEXT)  # with what has no weight, and letters beyond the first plane in their places
        assert answer.locator(".token.for").count() > 10 < answer.locator(".token.against").count()
        answer.get_by_text("As a table").click()
        expect(answer.get_by_role("table", name="").nth(1)).to_be_visible()
        check(page)
        answer.get_by_role("button", name="Right").click()
        expect(answer.get_by_role("status").filter(has_text="Thank you")).to_be_visible()
        answer.get_by_role("button", name="Right").click()
        expect(answer.get_by_text("This was written down already.")).to_be_visible()
        answer.get_by_role("button", name="Wrong").click()
        answer.get_by_role("group", name="The right class").get_by_role("button", name="negative").click()
        expect(answer.get_by_text("written down as negative")).to_be_visible()
    sent = fake.bodies("/feedback")
    assert [{**body, "id": 0} for body in sent] == [
        {"id": 0, "request": "req-1", "index": 0, **content}
        for content in ({"correct": True}, {"correct": True}, {"correct": False}, {"label": "negative"})
    ]
    assert sent[0]["id"] == sent[1]["id"] != sent[2]["id"]
    assert fake.bodies("/explain") == [{"model": "reviews@champion", "input": TEXT}]


def test_a_digit_is_drawn_with_the_mouse(browser: Browser, fake: FakeServer) -> None:
    with opened(browser, fake, "digits@champion") as page:
        page.get_by_role("button", name="Ask").click()
        expect(page.locator(".answer")).to_contain_text("Draw something first")
        box = page.get_by_role("img", name="Drawing pad").bounding_box()
        assert box is not None
        for number, (x, y) in enumerate([(0.1, 0.1), (0.4, 0.1), (0.2, 0.5)]):
            page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=6)
            if number == 0:
                page.mouse.down()
        page.mouse.up()
        page.get_by_role("button", name="Ask").click()
        expect(page.locator(".said")).to_have_text("7 93.1%")
        expect(page.locator(".why canvas")).to_have_count(2)
        expect(page.get_by_text("What speaks for 7 lies mostly in the lower right")).to_be_visible()
        check(page)
        page.get_by_role("button", name="Wrong").click()
        assert page.get_by_role("group", name="The right class").get_by_role("button").count() == 9
    (drawn,) = [picture(body["inputs"][0]) for body in fake.bodies("/predict")]
    assert drawn.shape == (28, 28)
    assert drawn.max() > 200
    ys, xs = np.nonzero(drawn > 100)
    # Drawn in a corner, it is in the middle and as large as the digits that models have learnt.
    assert 17 <= max(np.ptp(ys), np.ptp(xs)) + 1 <= 22
    assert abs((drawn * np.arange(28)).sum() / drawn.sum() - 13.5) < 1.5
    assert drawn[[0, -1]].max() < 60 > drawn[:, [0, -1]].max()


def test_a_digit_is_drawn_with_keys_and_taken_back(browser: Browser, fake: FakeServer) -> None:
    with opened(browser, fake, "digits@champion") as page:
        page.get_by_role("img", name="Drawing pad").focus()
        for key in [" ", *["ArrowDown"] * 9, " ", *["ArrowRight"] * 5, " ", *["ArrowUp"] * 9]:
            page.keyboard.press(key)
        page.get_by_role("button", name="Ask").press("Enter")
        expect(page.locator(".said")).to_be_visible()
        page.get_by_role("button", name="Undo").press("Enter")
        with page.expect_response("**/predict"):  # the answer before it is still to be seen
            page.get_by_role("button", name="Ask").press("Enter")
        expect(page.locator(".answer .said")).to_be_visible()
        expect(page.locator(".why canvas")).to_have_count(2)
    two, one = [picture(body["inputs"][0]) for body in fake.bodies("/predict")]
    strokes = [int(((row[1:] > 100) & (row[:-1] <= 100)).sum()) for row in (two[14], one[14])]
    assert strokes == [2, 1]


def test_a_picture_is_uploaded_inverted_and_refused_if_it_is_none(browser: Browser, fake: FakeServer) -> None:
    pixels = np.full((56, 40), 250, np.uint8)
    pixels[10:40, 10:20] = 5
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    with opened(browser, fake, "digits@champion") as page:
        chooser = page.locator("#picture-file")
        chooser.set_input_files({"name": "no.png", "mimeType": "image/png", "buffer": b"no picture"})
        expect(page.get_by_role("alert")).to_contain_text("cannot be opened")
        expect(page.get_by_role("alert")).to_contain_text("PNG or JPEG")
        chooser.set_input_files({"name": "seven.png", "mimeType": "image/png", "buffer": file.getvalue()})
        page.get_by_role("button", name="Ask").click()
        expect(page.locator(".said")).to_be_visible()
        page.get_by_role("button", name="Invert").click()
        page.get_by_role("button", name="Ask").click()
        expect(page.locator(".why canvas")).to_have_count(2)
    plain, inverted = [picture(body["inputs"][0]).astype(int) for body in fake.bodies("/predict")]
    assert plain.shape == (28, 28)
    assert plain[12, 10] < 40 < 200 < plain[2, 2]
    assert np.abs(255 - plain - inverted).max() <= 2


def test_a_translation_is_corrected(browser: Browser, fake: FakeServer) -> None:
    with opened(browser, fake, "ui@champion") as page:
        ask(page, "Save all")
        expect(page.locator(".verse")).to_have_text("译：Save all")
        page.get_by_role("button", name="Wrong").click()
        page.get_by_role("button", name="Send the correction").click()
        expect(page.get_by_text("change it first")).to_be_visible()
        page.get_by_label("What would have been right").fill("全部保存")
        check(page)
        page.get_by_role("button", name="Send the correction").click()
        expect(page.get_by_text("your version was written down")).to_be_visible()
    assert [body.get("text") for body in fake.bodies("/feedback")] == [None, "全部保存"]


def test_a_text_is_continued_as_it_is_written_and_stopped(browser: Browser, fake: FakeServer) -> None:
    fake.pieces, fake.pause = ["疑是", "地上霜，", *["举头"] * 200], 0.15
    with opened(browser, fake, "poems@champion") as page:
        page.get_by_label("Temperature").fill("1.2")
        length = page.get_by_label("Tokens at most")
        assert length.get_attribute("max") == "200"  # what the server allows
        length.fill("40")
        ask(page, "床前明月光，")
        expect(page.locator(".verse")).to_contain_text("床前明月光，疑是")
        assert "地上霜，举头举头举头举头举头举头" not in page.locator(".verse").inner_text()  # not only at its end
        expect(page.locator(".verse b")).to_contain_text("地上霜，举头")
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_text("Stopped by you.")).to_be_visible()
        assert fake.left.wait(10)
        check(page)
        expect(page.locator(".judge")).to_have_count(0)  # what was stopped is no answer on the record
        fake.pieces, fake.pause = ["一", "二"], 0
        page.get_by_role("button", name="Go on").click()
        expect(page.get_by_text("2 tokens; as many as were asked for.")).to_be_visible()
        page.get_by_role("button", name="Good", exact=True).click()
        expect(page.get_by_text("Thank you")).to_be_visible()
        fake.broken = True
        page.get_by_role("button", name="Go on").click()
        expect(page.get_by_role("alert")).to_contain_text("broke off")
        expect(page.locator(".verse")).to_have_text("床前明月光，一二")
    (first, *_) = fake.bodies("/v1/completions")
    assert (first["temperature"], first["max_tokens"], first["stream"]) == (1.2, 40, True)


def test_errors_are_said_in_words_and_nothing_typed_is_lost(browser: Browser, fake: FakeServer) -> None:
    fake.failing = {
        "/predict": [
            (503, "overloaded", "ask again in a moment"),
            (400, "limit_exceeded", "a text may have 9 characters"),
        ],
        "/explain": [
            (503, "worker_lost", "the model's process ended: ask again"),
            (400, "wrong_task", "only the answers of classifiers are explained"),
        ],
        "/feedback": [(503, "not_recorded", "the disk is full")],
    }
    with opened(browser, fake, fails="Failed to load resource") as page:
        ask(page, TEXT)
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("More is asked than can be answered.")
        expect(alert).to_contain_text("ask again in a moment")
        check(page)
        page.get_by_role("button", name="Try again").click()
        expect(alert).to_contain_text("more than is allowed here")
        assert page.get_by_role("textbox").input_value() == TEXT
        page.context.set_offline(True)
        page.get_by_role("button", name="Try again").click()
        expect(alert).to_contain_text("The server does not answer.")
        page.context.set_offline(False)
        page.get_by_role("button", name="Try again").click()
        expect(page.locator(".said")).to_be_visible()
        expect(page.locator(".why")).to_contain_text("process ended")
        page.locator(".why").get_by_role("button", name="Try again").click()
        expect(page.locator(".why")).to_contain_text("cannot be shown for this kind of model")
        expect(alert).to_have_count(0)
        page.get_by_role("button", name="Right").click()
        expect(alert).to_contain_text("could not be written down")
        alert.get_by_role("button", name="Try again").click()
        expect(page.get_by_text("Thank you")).to_be_visible()
        page.reload()
        assert page.get_by_role("textbox").input_value() == TEXT
        page.get_by_role("button", name="中文").click()
        fake.failing["/predict"] = [(500, "", "")]
        page.locator("button.main").first.click()
        expect(alert).to_contain_text("服务拒绝了此请求")
    assert len(fake.bodies("/feedback")) == 1


def test_a_key_is_asked_for_and_kept_in_the_tab_only(browser: Browser, fake: FakeServer) -> None:
    fake.key = "right"
    with opened(browser, fake, fails="401") as page:
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("This server needs a key")
        page.keyboard.press("Escape")
        expect(page.get_by_role("alert")).to_contain_text("Without a key")
        page.get_by_role("button", name="Try again").click()
        for key in ("wrong", "right"):
            dialog.get_by_label("Key").fill(key)
            page.keyboard.press("Enter")
            if key == "wrong":
                expect(dialog.get_by_role("alert")).to_contain_text("not known")
        ask(page, TEXT)
        expect(page.locator(".said")).to_be_visible()
        assert page.evaluate("Object.values(sessionStorage).includes('right')")
        assert "right" not in page.evaluate("JSON.stringify(localStorage) + document.cookie + location.href")
        page.reload()
        expect(page.get_by_role("textbox")).to_be_visible()


def questions(n: int = 4) -> list[dict[str, Any]]:
    return [
        {
            "id": f"q{k}",
            "request": f"r{k}",
            "index": 0,
            "input": f"text {k} {HOSTILE if k == 0 else ''}",
            "answer": {"label": "positive", "probability": 0.52},
            "why": {"by": "margin", "value": 0.04},
        }
        for k in range(n)
    ]


def test_questions_are_labelled_by_keys_skipped_and_taken_back(browser: Browser, fake: FakeServer) -> None:
    fake.questions = questions()
    with opened(browser, fake, fails="Failed to load resource") as page:
        page.get_by_role("link", name="Label").click()
        page.get_by_label("Who labels").fill("mei")
        page.get_by_label("Who labels").blur()
        desk = page.locator(".desk")
        expect(desk).to_contain_text("<b>not bold</b>")
        check(page)
        page.keyboard.press("1")
        expect(desk).to_contain_text("text 1")
        assert fake.bodies("/feedback") == []
        page.keyboard.press("u")
        expect(desk).to_contain_text("text 0")
        expect(page.get_by_text("negative was taken back")).to_be_visible()
        page.keyboard.press("2")
        expect(desk).to_contain_text("text 1")
        page.keyboard.press("s")
        expect(desk).to_contain_text("text 2")
        page.keyboard.press("9")  # there is no ninth class
        fake.failing["/feedback"] = [(503, "not_recorded", "the disk is full")]
        desk.get_by_role("button", name="negative").click()  # now the one before is sent, and fails
        expect(page.get_by_role("alert")).to_contain_text("could not be written down")
        page.get_by_role("alert").get_by_role("button", name="Try again").click()
        expect(page.get_by_text("2 done in this sitting, 2 open in all")).to_be_visible()
        page.keyboard.press("1")
        expect(desk).to_contain_text("last question")  # the last one is sent by itself
        expect(page.locator("#view-label > [role=status]")).to_contain_text("written down")
        expect(desk).to_contain_text("ask=20")
        check(page)
        page.get_by_role("button", name="Look again").click()
        expect(desk).to_contain_text("text 1")  # what was skipped is still open
    sent = {body["request"]: body for body in fake.bodies("/feedback")}
    assert {request: body["label"] for request, body in sent.items()} == {
        "r0": "positive",
        "r2": "negative",
        "r3": "negative",
    }
    assert all(body["source"] == {"kind": "labeller", "id": "mei"} for body in sent.values())
    assert len(fake.bodies("/feedback")) == 3


def test_it_is_told_how_many_questions_are_open_in_all_and_all_of_them_come(browser: Browser, fake: FakeServer) -> None:
    fake.questions = questions(45)
    with opened(browser, fake) as page:
        page.get_by_role("link", name="Label").click()
        counted, desk = page.locator(".progress .note"), page.locator(".desk")
        expect(counted).to_have_text("0 done in this sitting, 45 open in all")
        for number in range(22):
            expect(desk).to_contain_text(f"text {number}")
            page.keyboard.press("s")
        expect(desk).to_contain_text("text 22")  # behind what was skipped there are more
        for number in range(22, 45):
            expect(desk).to_contain_text(f"text {number}")
            page.keyboard.press("1")
        expect(counted).to_have_text("23 done in this sitting, 22 open in all")
        expect(desk).to_contain_text("last question but 22 that you skipped")
        page.keyboard.press("u")
        expect(counted).to_have_text("22 done in this sitting, 23 open in all")
        bar = page.get_by_role("progressbar")
        assert bar.evaluate("(e) => [e.value, e.max]") == [22, 45]
        page.get_by_role("button", name="中文").click()
        expect(counted).to_have_text("本次已完成 22 个，共有 23 个待标注")
    assert len(fake.bodies("/feedback")) == 22


def test_an_answer_not_yet_sent_outlives_a_reload(browser: Browser, fake: FakeServer) -> None:
    fake.questions = questions(2)
    with opened(browser, fake) as page:
        page.get_by_role("link", name="Label").click()
        expect(page.locator(".desk")).to_contain_text("text 0")
        page.keyboard.press("1")
        expect(page.locator(".desk")).to_contain_text("text 1")
        page.reload()
        expect(page.locator(".desk")).to_contain_text("text 1")
    assert [(body["request"], body["label"]) for body in fake.bodies("/feedback")][:1] == [("r0", "negative")]
    assert len({body["id"] for body in fake.bodies("/feedback")}) == 1


def test_a_decided_comparison_says_what_to_do(browser: Browser, fake: FakeServer) -> None:
    fake.board = board()
    fake.board["experiment"] |= {"decision": "superior", "low": 0.011, "n_since": 12}
    fake.board["drift"] = [
        {"signal": "latency", "effect": 0.041, "excess": -0.004, "p_adjusted": 1.0, "alarm": False},
        {"signal": "failures", "effect": 0.25, "excess": 0.2, "p_adjusted": 0.001, "alarm": True},
    ]
    with opened(browser, fake) as page:
        page.get_by_role("link", name="Board").click()
        panel = page.locator(".board section").filter(has_text="Challenger against champion")
        expect(panel).to_contain_text("the challenger is better")
        expect(panel).to_contain_text("danlu promote reviews")
        expect(panel).to_contain_text("12 users came since")
        drift = page.locator(".board section").filter(has_text="Has anything changed?")
        expect(drift).to_contain_text("41 ms")
        expect(drift).to_contain_text("−4.0 ms")
        expect(drift).to_contain_text("+20.0%")
        check(page)
        fake.board["drift"], fake.board["windows"] = [], 12  # a champion that learnt: it has no signals yet
        page.reload()
        expect(drift).to_contain_text("12 windows of requests so far")
        expect(drift).not_to_contain_text("Nothing is watched yet")


def test_the_board_shows_refreshes_and_pauses(browser: Browser, fake: FakeServer) -> None:
    fake.board = board()
    fake.board["history"][-1]["reason"] = HOSTILE
    fake.board["alerts"][0]["signal"] = HOSTILE
    fake.board["labels"][HOSTILE] = 3
    with opened(browser, fake) as page:
        page.clock.install()
        page.get_by_role("link", name="Board").click()
        tiles = page.locator(".tile")
        expect(tiles).to_have_count(4)
        n = sum(bucket["n"] for bucket in fake.board["traffic"])
        expect(tiles.first).to_contain_text(f"{n:,}")
        expect(tiles.nth(2)).to_contain_text("[81.7%, 86.6%]")
        pictures = {svg.get_attribute("aria-labelledby") for svg in page.locator(".board svg").all()}
        assert len(pictures) == 5
        for ids in pictures:
            title, told = [page.locator(f"#{each}").text_content() for each in str(ids).split()]
            assert title
            assert re.search(r"\d", told or "")
        expect(page.locator(".board")).to_contain_text("between −0.4 and +6.6 with 95% confidence at all times")
        band = page.locator("svg .band").bounding_box()
        whisker = page.locator("svg:has(.band) .whisker").first.bounding_box()
        assert band is not None
        assert whisker is not None
        assert whisker["width"] / band["width"] == pytest.approx(0.070 / 0.040, rel=0.03)
        assert page.locator(".badge.no").filter(has_text="alarm").count() == 3
        expect(page.locator(".history li").first).to_contain_text("superior by 2.3 points")
        assert page.evaluate("window.bad") is None
        assert page.locator(".board img, .board script").count() == 0
        check(page)
        page.get_by_text("As a table").first.click()
        fake.board |= {"errors": 77, "digest": "e" * 64}
        page.clock.run_for(5100)
        expect(tiles.first).to_contain_text("77 failed")
        expect(page.locator("#facts")).to_contain_text("eeeeeeeeeeee")  # another model was promoted meanwhile
        expect(page.locator(".board details").first).to_have_attribute("open", "")
        page.get_by_role("button", name="Pause").click()
        assert_still(page, fake)
        page.get_by_role("button", name="Go on").click()
        expect(page.get_by_text("refreshed every")).to_be_visible()
        page.evaluate("Object.defineProperty(document, 'hidden', { get: () => true, configurable: true })")
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        assert_still(page, fake)
        page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
        fake.board["errors"] = 78
        page.clock.run_for(5100)
        expect(tiles.first).to_contain_text("78 failed")


def test_an_alert_is_told_in_words_and_no_line_leads_across_what_nobody_asked(
    browser: Browser, fake: FakeServer
) -> None:
    fake.board = board()
    del fake.board["traffic"][10:20]
    del fake.board["traffic"][1]
    with opened(browser, fake) as page:
        page.get_by_role("link", name="Board").click()
        alert = page.locator(".alerts li")
        expect(alert).to_contain_text(
            "characters changed by window 23 (1,380 seen): effect 0.312, 0.271 beyond the usual"
        )
        expect(alert.locator("code")).to_have_text("999999999999")
        page.get_by_role("button", name="中文").click()
        expect(alert).to_contain_text(
            "字符 到第 23 个窗口（共 1,380 条）已有变化：幅度 0.312，超出平常 0.271（p = 0.0004）"
        )
        for curve in ("p50", "p95", "p99"):
            assert page.locator(f"svg polyline.{curve}").count() == 2
            assert page.locator(f"svg circle.{curve}").count() == 1
        check(page)


def assert_still(page: Page, fake: FakeServer) -> None:
    page.wait_for_timeout(200)
    before = len(fake.bodies("/board"))
    page.clock.run_for(20_000)
    page.wait_for_timeout(200)
    assert len(fake.bodies("/board")) == before


def test_an_empty_board_says_what_will_be_there_and_an_error_leaves_what_was_known(
    browser: Browser, fake: FakeServer
) -> None:
    with opened(browser, fake, fails="Failed to load resource") as page:
        page.clock.install()
        page.get_by_role("link", name="Board").click()
        for command in ("danlu monitor reviews", "danlu promote reviews trial=live", "/predict"):
            expect(page.locator(".board .cmd", has_text=command).first).to_be_visible()
        assert page.locator(".board svg").count() == 0
        check(page)
        fake.failing["/board"] = [(503, "overloaded", "ask again")]
        page.clock.run_for(5100)
        expect(page.get_by_role("alert")).to_contain_text("More is asked")
        expect(page.locator(".tile")).to_have_count(4)
        page.clock.run_for(5100)
        expect(page.get_by_role("alert")).to_have_count(0)


def test_hostile_text_is_text_everywhere(browser: Browser, fake: FakeServer) -> None:
    with opened(browser, fake) as page:
        for model in ("reviews@champion", "ui@champion", "poems@champion"):
            page.select_option("#model", model)
            fake.pieces = [HOSTILE]
            ask(page, HOSTILE)
            expect(page.locator(".answer")).to_contain_text("<script>window.bad=1</script>")
            expect(page.locator(".judge")).to_be_visible()
            page.get_by_role("button", name="中文").click()
            page.get_by_role("button", name="English").click()
        page.wait_for_timeout(200)
        assert page.evaluate("window.bad") is None
        assert (
            page.locator("main img, main script, main b:has-text('not bold')").count()
            == page.locator(".verse b").count()
        )


def test_the_whole_of_it_by_keys_alone(browser: Browser, fake: FakeServer) -> None:
    fake.questions = questions(1)
    with opened(browser, fake) as page:

        def to(role: str, name: str) -> None:
            """Tab until it has the focus, which has to be seen all the way."""
            for _ in range(40):
                page.keyboard.press("Tab")
                seen = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert seen == "solid", page.evaluate("document.activeElement.outerHTML")
                if page.get_by_role(role, name=name).evaluate("(e) => e === document.activeElement"):  # type: ignore[arg-type]
                    return
            raise AssertionError(f"no way to {name} by Tab")

        to("link", "Skip to the content")
        page.keyboard.press("Enter")
        to("textbox", "Text")
        page.keyboard.type("good")
        page.keyboard.press("Control+Enter")
        expect(page.locator(".shaded")).to_be_visible()
        to("button", "Wrong")
        page.keyboard.press("Enter")
        to("button", "negative")
        page.keyboard.press("Space")
        expect(page.get_by_text("written down as negative")).to_be_visible()
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("Home")
        for _ in range(40):
            page.keyboard.press("Shift+Tab")
            if page.get_by_role("link", name="Board").evaluate("(e) => e === document.activeElement"):
                break
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("How is it doing?")
        expect(page.get_by_role("heading", level=1)).to_be_focused()
        to("button", "Pause")
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Go on")).to_be_focused()


def in_chinese(page: Page, what: str, texts: list[str]) -> list[str]:
    """What a function of the page's terms makes of texts; the English is the text itself."""
    call = "async ([what, texts]) => { const terms = await import('/assets/terms.js'); return texts.map(terms[what]); }"
    found = page.evaluate(call, [what, texts])
    assert [en for en, _ in found] == texts
    return [zh for _, zh in found]


def english(text: str) -> set[str]:
    """Words of a text that should be Chinese; names and digests are the same in both."""
    words = set(re.findall(r"[A-Za-z]{2,}", re.sub(r"\b[0-9a-f]{12,}\b", "", text)))
    return words - {"Transformer", "AUROC", "ECE", "chrF", "BLEU"}


def test_why_a_name_means_another_model_is_told_in_chinese_and_a_persons_words_as_they_are(
    browser: Browser, fake: FakeServer, tmp_path: Path
) -> None:
    workspace, mine = Workspace(tmp_path), "trained; better: 试过 (l to h)"
    a, b, c = (made_model(workspace, label) for label in "abc")
    gate = Gate(True, "better", "macro_f1", 0.043, 0.01, 0.07, 0.00031, 0.05, "gru")
    job: Any = SimpleNamespace(recipe=SimpleNamespace(name=NAME), workspace=workspace)
    job._call = partial(Job._call, job)
    Job._called_latest(job, NAME, a)
    Job._promote(job, a, gate, b, None)
    judged = {"metric": "accuracy", "difference": 0.19, "low": -0.1442, "high": 0.2359, "margin": 0.05}
    facts = {"passed": True, "feedback": {"n_used": 944}, "gate": {**judged, "passed": True}}
    parents = {"champion": a.digest, "challenger": b.digest}
    with workspace.create("proposal", NAME, key="p", config={}, parents=parents) as draft:
        write_json(draft.folder / "proposal.json", facts)
    _called(workspace, NAME, a, b, draft.artifact)
    promote(workspace, NAME, ["trial=live", "margin=0.05", "budget=1000", "why=x"])
    trial = workspace.experiments.running(NAME)
    assert trial is not None
    Traffic(workspace, trial).live(200, 0.95, 0.2)
    assert promote(workspace, NAME, [f"why={mine}"]).done == "promoted"
    promote(workspace, NAME, ["back=true", f"why={mine}"])
    compared(workspace, a, c)
    promote(workspace, NAME, [f"to={c.digest[:12]}"])
    promote(workspace, NAME, ["back=true"])
    workspace.ledger.set_alias(NAME, "gold", a, reason="400 records of gold.csv")
    workspace.ledger.set_alias(NAME, "champion", a, reason=mine)
    told = [entry.reason for entry in workspace.ledger.entries()]
    assert len(told) == 10
    shares = {"n": 1234, "difference": 0.1, "low": -0.1, "high": 0.3, "reason": "shares", "ratio_p": 1e-5}
    uneven = replace(trial, decision="superior", facts=shares)
    shadow = replace(trial, plan={**trial.plan, "mode": "shadow"}, decision="equivalent", facts={})
    told += [f"proposal: passed; {told_of(each)}" for each in (uneven, shadow)]
    fake.board = board(empty=True) | {"history": danlu_board.board(workspace, NAME)["history"]}
    with opened(browser, fake) as page:
        zh = in_chinese(page, "reason", told)
        assert (zh[0], zh[-3]) == ("训练完成", mine)
        by_whom = {4: f"；{mine}", 5: f"：{mine}"}
        for number, text in enumerate(zh):
            end = by_whom.get(number, "")
            assert text.endswith(end)
            assert english(text.removesuffix(end)) <= ({"gold", "csv"} if number == 8 else {"old"}) or number == 9, text
        assert re.fullmatch(
            r"提议：通过，准确率 \+0.1900（-0.1442 至 \+0.2359）；在线试验 \w+：挑战者更好，[\d,]+ / 1,000 名用户，"
            r"挑战者减冠军 \+\S+（\+\S+ 至 \+\S+），界限 0.05；(此后又有 \d+ 条，不影响该决定；)?" + re.escape(mine),
            zh[4],
        )
        page.get_by_role("link", name="Board").click()
        page.get_by_role("button", name="中文").click()
        expect(page.locator(".history li")).to_have_count(10)
        shown = page.locator(".history li").all_inner_texts()
        assert all(text in each for text, each in zip(reversed(zh[:10]), shown, strict=True))
        assert "金标准集" in shown[1]
        check(page)


def test_how_an_explanation_was_found_is_told_in_chinese(
    browser: Browser, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bert, cnn = made_predictor("text-classification"), made_predictor("image-classification")
    texts, labels = [text for text, _ in made_up()], np.arange(240) % 2
    tfidf = TfidfLogisticRegression(TfidfConfig()).fit(texts, labels)
    both = Ensemble({"bert": bert.answerer, "tfidf-lr": tfidf}, np.ones(2), np.zeros(2))  # type: ignore[dict-item]
    pictures = np.random.default_rng(0).integers(0, 256, (8, 1, 14, 14), dtype=np.uint8)
    pixels = PixelLogisticRegression(PixelConfig()).fit(pictures, np.arange(8) % 2)
    told: list[str] = []
    for most in (16, 1):
        monkeypatch.setattr(gradients, "_FEWEST", most)
        monkeypatch.setattr(gradients, "_MOST", most)
        told += [shares_of_text(each, "好差" * 400, 1).method for each in (bert.answerer, tfidf, both)]  # type: ignore[arg-type]
        told += [shares_of_picture(each, pictures[0], 1).method for each in (cnn.answerer, pixels)]  # type: ignore[arg-type]
    assert {"steps were not enough" in each for each in told} == {"only the first" in each for each in told}
    assert len({re.sub(r"[^a-z]", "", each) for each in told}) > 5
    with opened(browser, fake) as page:
        for text in in_chinese(page, "method", told):
            assert english(text) == set(), text
        ask(page, TEXT)
        page.get_by_text("How this was found").click()
        page.get_by_role("button", name="中文").click()
        expect(page.locator(".why")).to_contain_text("积分梯度，以隐去全部词元的文本为起点")
        expect(page.locator("#facts")).to_have_text("文本分类 · Transformer 编码器 · aaaaaaaaaaaa")
        for mine, theirs in (("FAMILIES", FAMILIES), ("METRICS", {key: each.name for key, each in METRICS.items()})):
            known = page.evaluate(f"import('/assets/terms.js').then((terms) => terms.{mine})")
            assert known == {key: str(each.zh) for key, each in theirs.items()}


@pytest.mark.parametrize("look", ["dark", "light"])
@pytest.mark.parametrize("locale", ["zh-CN", "en-US"])
def test_every_view_in_both_languages_and_colours_on_a_phone(
    browser: Browser, fake: FakeServer, locale: str, look: Any
) -> None:
    fake.board, fake.questions = board(), questions()
    zh = locale == "zh-CN"
    with opened(browser, fake, locale=locale, color_scheme=look, viewport=PHONE, has_touch=True) as page:
        assert page.evaluate("document.documentElement.lang") == ("zh-CN" if zh else "en")
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 20, 17)"
        assert dark == (look == "dark")
        ask(page, TEXT)
        expect(page.locator(".shaded")).to_be_visible()
        page.get_by_role("button", name="错误" if zh else "Wrong").click()
        expect(page.locator(".thanks")).to_be_visible()
        check(page)
        page.select_option("#model", "digits@champion")
        page.get_by_role("img", name="画板" if zh else "Drawing pad").tap()
        page.locator("button.main").first.click()
        expect(page.locator(".why canvas")).to_have_count(2)
        check(page)
        page.select_option("#model", "poems@champion")
        ask(page, "春")
        expect(page.locator(".judge")).to_be_visible()
        check(page)
        page.select_option("#model", "reviews@champion")
        for view, there in (("#label", ".asked"), ("#board", ".history")):
            page.click(f"a[href='{view}']")
            expect(page.locator(there)).to_be_visible()
            check(page)


def test_language_and_colours_are_switched_and_remembered(browser: Browser, fake: FakeServer) -> None:
    with opened(browser, fake, color_scheme="light") as page:
        ask(page, TEXT)
        expect(page.locator(".shaded")).to_be_visible()
        page.get_by_role("button", name="中文").click()
        page.get_by_role("button", name="深色").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("这段文本属于哪一类？")
        expect(page.locator(".said")).to_have_text("positive 93.1%")  # what was there is there
        assert page.get_by_role("textbox").input_value() == TEXT
        check(page)
        page.reload()
        expect(page.get_by_role("heading", level=1)).to_have_text("这段文本属于哪一类？")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 20, 17)"
        assert page.title() == "试用 · reviews@champion · danlu"
        expect(page.get_by_role("button", name="中文")).to_have_attribute("aria-pressed", "true")


def test_what_is_checked_of_every_state_can_be_found_wanting(browser: Browser, fake: FakeServer) -> None:
    wrongs = {
        "name": "document.querySelector('#model').labels[0].remove()",
        "contrast": "document.querySelector('.lede').className = 'faint'",
        "language": "document.querySelector('.lede').removeAttribute('data-zh')",
        "sideways": "document.querySelector('.lede').className = 'far'",
    }
    with opened(browser, fake, fails="policy|Applying inline style", viewport=PHONE) as page:
        check(page)
        page.evaluate("""() => { const sheet = new CSSStyleSheet();
            sheet.replaceSync('.faint { color: #999 } .far { width: 900px; max-width: none }');
            document.adoptedStyleSheets = [sheet]; }""")
        for what, wrong in wrongs.items():
            page.select_option("#model", "reviews@champion")
            page.evaluate(wrong)
            assert [found.split(":")[0] for found in page.evaluate(RULES.read_text(encoding="utf-8"))] == [what]
            page.reload()
            page.evaluate("""() => { const sheet = new CSSStyleSheet();
                sheet.replaceSync('.faint { color: #999 } .far { width: 900px; max-width: none }');
                document.adoptedStyleSheets = [sheet]; }""")
            expect(page.locator(".lede")).to_be_visible()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.evaluate("document.body.setAttribute('style', 'color: red')")
        page.wait_for_timeout(100)
        assert any("policy" in each for each in said)


@pytest.mark.timeout(600)
def test_the_real_server_answers_the_page(browser: Browser, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    for name, task in SERVED.items():
        make_served(workspace, name, task)
    with serving(workspace.root, *(f"{name}@champion" for name in SERVED), folder=tmp_path) as served:
        real = FakeServer(address=served.address)
        with opened(browser, real) as page:
            ask(page, "好棒 <b>好</b>")
            expect(page.locator(".said")).to_contain_text("%")
            expect(page.locator(".shaded .token").first).to_be_visible()
            page.get_by_role("button", name="Right").click()
            expect(page.get_by_text("Thank you")).to_be_visible()
            page.get_by_role("button", name="Wrong").click()
            page.get_by_role("group", name="The right class").get_by_role("button").click()
            expect(page.get_by_text("written down as")).to_be_visible()
            page.select_option("#model", "digits@champion")
            page.get_by_role("img", name="Drawing pad").click()
            page.get_by_role("button", name="Ask").click()
            expect(page.locator(".why canvas")).to_have_count(2)
            page.get_by_role("button", name="Right").click()
            expect(page.get_by_text("Thank you")).to_be_visible()
            page.select_option("#model", "ui@champion")
            ask(page, "好")
            page.get_by_role("button", name="Wrong").click()
            page.get_by_label("What would have been right").fill("fine")
            page.get_by_role("button", name="Send the correction").click()
            expect(page.get_by_text("your version was written down")).to_be_visible()
            page.select_option("#model", "poems@champion")
            page.get_by_label("Tokens at most").fill("5")
            ask(page, "好")
            page.get_by_role("button", name="Good", exact=True).click()
            expect(page.get_by_text("Thank you")).to_be_visible()
            said = [event for event in served.events() if event["event"] == "feedback"]
            put_question(workspace, said[0])
            page.select_option("#model", "reviews@champion")
            page.get_by_role("link", name="Label").click()
            expect(page.locator(".asked")).to_have_text("好棒 <b>好</b>")
            page.locator(".lede").click()
            page.keyboard.press("1")
            expect(page.locator(".desk")).to_contain_text("last question")
            expect(page.locator("#view-label > [role=status]")).to_contain_text("written down")
            page.get_by_role("link", name="Board").click()
            expect(page.locator(".tile").first).to_contain_text("1")
            expect(page.locator(".history li")).to_have_count(1)
            check(page)
        said = [event for event in served.events() if event["event"] == "feedback"]
    values = [next(event[key] for key in ("correct", "label", "text") if key in event) for event in said]
    assert values[0:2] + values[3:] == [True, False, True, False, "fine", True, "bad"]
    assert values[2] in ("bad", "good")
    assert {event["name"] for event in said} == set(SERVED)
    assert said[-1]["source"]["kind"] == "labeller"
    assert len({event["source"]["id"] for event in said[:-1]}) == 1


def put_question(workspace: Workspace, said: dict[str, Any]) -> None:
    """What ``danlu feedback NAME ask=1`` writes."""
    asked = {key: said[key] for key in ("name", "request", "index", "input")}
    why = {"by": "margin", "value": 0.02}
    answer = {"label": "good", "probability": 0.51}
    EventLog(workspace.events, "feedback").write("question", id="q-1", **asked, answer=answer, why=why)


def test_nothing_stands_inline_and_nothing_is_of_another_place() -> None:
    for file in ASSETS.iterdir():
        text = file.read_text(encoding="utf-8")
        assert text.count("\n") <= 400, file.name
        addresses = set(re.findall(r"https?://[^\"'\s]+", text)) - {"http://www.w3.org/2000/svg"}
        assert addresses == set(), file.name
        if file.suffix == ".html":
            assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\s(style|on\w+)=", text)
        if file.suffix == ".js":
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
    assert json.loads(json.dumps(page_server.MODELS)) == page_server.MODELS
