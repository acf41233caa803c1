from __future__ import annotations

import html
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from danlu.evaluate.placeholders import KINDS, find_placeholders, keeps_placeholders, kinds_kept, placeholders


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("%s of %d, %5d, %-8.3f and %r", ["%s", "%d", "%5d", "%-8.3f", "%r"]),
        ("%(name)s, %(count)02d, %(a.b)s", ["%(name)s", "%(count)02d", "%(a.b)s"]),
        ("%2$s after %1$s; %*.*f; %ld %lu %zd", ["%2$s", "%1$s", "%*.*f", "%ld", "%lu", "%zd"]),
        ("%1%2 and %10%1/%2", ["%1", "%2", "%10", "%1", "%2"]),
        ("读取%d个文件%s：%dm %.3fs", ["%d", "%s", "%d", "%.3f"]),
        ("%(percent)s%% complete, 100%% sure", ["%(percent)s", "%%", "%%"]),
        ("%%s is a literal", ["%%"]),
        ("'%s'/%s=%s", ["%s", "%s", "%s"]),
    ],
)
def test_printf(text, found):
    assert placeholders(text) == found
    assert {item.kind for item in find_placeholders(text)} == {"printf"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{} {0} {name} {名称}", ["{}", "{0}", "{name}"]),
        ("{order.code} {a[0].b} {current.__name__}", ["{order.code}", "{a[0].b}", "{current.__name__}"]),
        ("{name!r:>10} {x: >4} {t:%H:%M} {n:,.2f}", ["{name!r:>10}", "{x: >4}", "{t:%H:%M}", "{n:,.2f}"]),
        ("{rate}% {name}, '{0}.{1}'", ["{rate}", "{name}", "{0}", "{1}"]),
    ],
)
def test_brace(text, found):
    assert placeholders(text) == found
    assert {item.kind for item in find_placeholders(text)} == {"brace"}


@pytest.mark.parametrize(
    ("kind", "text", "found"),
    [
        ("template", "{{branch}}或{{ component }}, {{ name|dir }}", "{{branch}} {{ component }} {{ name|dir }}"),
        ("dollar", "${label}: ${error.message || error.data[x]}", "${label} ${error.message || error.data[x]}"),
        ("tag", "<b>bold</b>,<br/> <br /> <x id='1'/>", "<b> </b> <br/> <br /> <x id='1'/>"),
        ("tag", '<a href="%(url)s" target=_new>here</a>', '<a href="%(url)s" target=_new> </a>'),
        ("tag", '<a class="x"\n  href="//h/#11">', '<a class="x"\n  href="//h/#11">'),
        ("entity", "&lt;head&gt; &nbsp;&#8212;&#x2013;", "&lt; &gt; &nbsp; &#8212; &#x2013;"),
        ("role", "see :ref:`intro`, :py:func:`f`; :widths: is ignored", ":ref: :py:func: :widths:"),
        ("role", "已忽略:widths:选项", ":widths:"),
        ("url", "at https://127.0.0.1:80/en/%(v)s/a_(b)/?q=1&x=2#f.", "https://127.0.0.1:80/en/%(v)s/a_(b)/?q=1&x=2#f"),
        ("url", "请访问 https://127.0.0.1/en。(ftp://host/x)", "https://127.0.0.1/en ftp://host/x"),
        ("accelerator", "&File, R&emove, 运行(&r)", "&F &E &R"),
    ],
)  # fmt: skip
def test_other_kinds(kind, text, found):
    assert " ".join(placeholders(text)) == found
    assert {item.kind for item in find_placeholders(text)} == {kind}


@pytest.mark.parametrize(
    "text",
    [
        "100% sure, 50%off, 5 % tax, 20 %",
        "!$#% and 99%.",
        "{tour: ITour} {'a': 1} {\"degrees\": 180} { } {a b} {{'a': 1}}",
        "a < b and c > d, x<y and y>z, <- , <=, 2<3>1",
        "Q&A, R&D, AT&T; this & that, a && b",
        "10:30:00, HH:mm:ss, note: a:b: c",
        "https://”, http:// or file name_with_under, _private, __all__, $5, $HOME, $ matches",
        "`code`, C:\\dir, user@host",
    ],
)
def test_what_is_no_placeholder(text):
    assert find_placeholders(text) == []


def test_one_placeholder_never_lies_in_another():
    text = '<a href="https://h/{0}?a=1&b=%s">%(name)s</a> {{ x|y:"%s" }} https://h/{id}'
    kinds = [item.kind for item in find_placeholders(text)]
    assert kinds == ["tag", "printf", "tag", "template", "url"]


@given(st.text(alphabet=string.ascii_letters + "<>&\"'", max_size=20))
def test_an_escaped_text_has_one_entity_for_every_escaped_sign(text):
    entities = [item for item in find_placeholders(html.escape(text)) if item.kind == "entity"]
    assert len(entities) == sum(text.count(sign) for sign in "<>&\"'")


names = st.text(alphabet=string.ascii_letters, min_size=1, max_size=8)


@given(st.lists(names, min_size=1, max_size=5), st.sampled_from("diouxXeEfFgGcrsa"))
def test_what_python_formats_is_found(fields, conversion):
    braces = [f"{{{name}}}" for name in fields]
    parsed = [field for _, field, _, _ in string.Formatter().parse("、".join(braces)) if field is not None]
    assert placeholders("、".join(braces)) == [f"{{{field}}}" for field in parsed]
    named = [f"%({name}){conversion}" for name in fields]
    assert placeholders("的".join(named)) == named


@given(st.text(alphabet="%s(){}<a>/&;:$`|d1 中文", max_size=40))
def test_placeholders_are_pieces_of_the_text_in_its_order(text):
    rest = text.upper()
    for item in find_placeholders(text):
        assert item.kind in KINDS
        _, piece, rest = rest.partition(item.text.upper())
        assert piece


def test_kept_means_the_same_ones_as_often_in_any_order():
    assert keeps_placeholders("%(a)s in {0}", "在 {0} 的 %(a)s")
    assert not keeps_placeholders("%s and %s", "%s")
    assert not keeps_placeholders("%s", "%s 和 %s")
    assert not keeps_placeholders("{name}", "{名称}")
    assert not keeps_placeholders("%(name)s", "%(名称)s")
    assert not keeps_placeholders("<b>%s</b>", "<b>%s<b>")
    assert not keeps_placeholders("Open", "打开 %s")
    assert keeps_placeholders("Save &as", "另存为 (&A)")
    assert keeps_placeholders("100% sure", "百分之百")


def test_each_kind_is_judged_by_itself():
    assert kinds_kept("<b>%s</b> &amp; %d", "<b>%s</b> 和 %s {0}") == {"tag": True, "entity": False, "printf": False}
    assert kinds_kept("plain", "{0}") == {}
