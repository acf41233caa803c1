from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from danlu.data.normalize import normalize_texts
from danlu.data.pii import KINDS, count_kinds, mask, mask_texts

RESIDENT = "11010519491231002X"  # the example of GB 11643
CARD = "6222021234567890"[:15]


def luhn(digits: str) -> str:
    """Digits with their check digit, by the schoolbook rule."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return digits + str(-total % 10)


@pytest.mark.parametrize(
    ("text", "masked", "kinds"),
    [
        ("电话13800138000。", "电话<phone>。", ["mobile"]),
        ("电话：+86 138-0013-8000谢谢", "电话：<phone>谢谢", ["mobile"]),
        ("call 008613800138000 now", "call <phone> now", ["mobile"]),
        ("小庄13261821032和13901019711", "小庄<phone>和<phone>", ["mobile", "mobile"]),
        ("传真至010-59222799,我们", "传真至<phone>,我们", ["landline"]),
        ("电话(0791)2878108转12锦昌", "电话<phone>锦昌", ["landline"]),
        ("座机+86-10-8234 5678", "座机<phone>", ["landline"]),
        ("ring (415) 555-0132 or 415-555-0132", "ring <phone> or <phone>", ["landline", "landline"]),
        (f"身份证{RESIDENT}号", "身份证<id>号", ["resident_id"]),
        ("身份证110105 19491231 002x", "身份证<id>", ["resident_id"]),
        ("身份证110105491231002号", "身份证<id>号", ["resident_id"]),
        (f"卡号{luhn(CARD)}，", "卡号<card>，", ["bank_card"]),
        ("卡号4111 1111 1111 1111 123元", "卡号<card> 123元", ["bank_card"]),
        ("卡4111-1111-1111-1111", "卡<card>", ["bank_card"]),
        ("邮箱sarah.liu@qq.com联系", "邮箱<email>联系", ["email"]),
        ("mail a_b+c@mail.example.com.cn.", "mail <email>.", ["email"]),
        ("护照E12345678丢了", "护照<passport>丢了", ["passport"]),
        ("护照EA1234567", "护照<passport>", ["passport"]),
        ("车牌京A12345停在", "车牌<plate>停在", ["plate"]),
        ("粤B·D12345和沪AD12345", "<plate>和<plate>", ["plate", "plate"]),
        ("浙A12345F", "<plate>", ["plate"]),
    ],
)
def test_personal_data_is_masked(text: str, masked: str, kinds: list[str]) -> None:
    assert mask(text) == (masked, kinds)


@pytest.mark.parametrize(
    "text",
    [
        "订单号2013800138000123456789",  # a phone inside a longer run
        "113800138000",
        "138001380001",
        "110105194912310021",  # wrong check digit
        "11010519491331002X",  # no such month
        "990105194912310021",  # no such province
        "110105491331002",
        "6222021234567891",  # not by Luhn
        "0000000000000000",
        "0.13800138000",
        "苏N95口罩",
        "全新T400很好",
        "京ABCDEF",
        "SE12345678",
        "价格3999元，2008-08-08 12:30:45",
        "192.168.100.200",
        "a@b",
        "3.14159265358979",
    ],
)
def test_other_digits_stay(text: str) -> None:
    assert mask(text) == (text, [])


@pytest.mark.parametrize("text", ["粵B12345", "滬A·D12345", "蘇E1234挂", "瓊A12345"])
def test_a_plate_in_traditional_characters(text: str) -> None:
    assert mask(f"車牌{text}。") == ("車牌<plate>。", ["plate"])


def test_full_width_digits_are_masked_once_normalised() -> None:
    texts = normalize_texts(pa.array(["电话１３８００１３８０００", None, "没有"]))
    masked, kinds = mask_texts(texts)
    assert masked.to_pylist() == ["电话<phone>", None, "没有"]
    assert kinds.to_pylist() == [["mobile"], [], []]
    counts = count_kinds(pa.chunked_array([kinds]))
    assert tuple(counts) == KINDS
    assert counts["mobile"] == 1
    assert sum(counts.values()) == 1


@given(
    st.text(alphabet="电话a 好。", max_size=5),
    st.from_regex(r"1[3-9][0-9]{9}", fullmatch=True),
    st.text(alphabet="谢b。", max_size=5),
)
def test_a_mobile_number_never_stays(before: str, number: str, after: str) -> None:
    assert mask(before + number + after) == (before + "<phone>" + after, ["mobile"])


@given(st.from_regex(r"[2-69][0-9]{14,17}", fullmatch=True).filter(lambda digits: len(set(luhn(digits))) > 1))
def test_every_card_number_is_masked(digits: str) -> None:
    text, kinds = mask("卡" + luhn(digits) + "号")
    assert kinds in (["bank_card"], ["resident_id"])
    assert not any(char.isdigit() for char in text)


@given(st.lists(st.text(alphabet="0123456789 -+@.aE京A好", max_size=30), max_size=5))
def test_a_batch_is_masked_as_its_texts_are(texts: list[str]) -> None:
    masked, kinds = mask_texts(pa.array(texts, pa.string()))
    assert list(zip(masked.to_pylist(), kinds.to_pylist(), strict=True)) == [mask(text) for text in texts]
