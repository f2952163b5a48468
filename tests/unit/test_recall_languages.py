"""Which language a text is taken to be in."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoryd.recall.languages import language_of
from memoryd.recall.text import words_of


def guess(text, default="en", likely=()):
    return language_of(words_of(text), default, likely)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("ar", "هي أرملة منذ ثلاث سنوات"),
        ("da", "Hun vil gerne have det sendt til sin nye adresse"),
        ("de", "Der Kunde möchte am Montag zurückgerufen werden"),
        ("en", "The customer wants to be called back on Monday"),
        ("el", "Ήρθε χθες το πρωί"),
        ("es", "El cliente quiere que le llamen el lunes"),
        ("fa", "مشتری می خواهد که با او تماس بگیریم"),
        ("fr", "Le client veut être rappelé lundi, mais pas avant midi"),
        ("he", "הלקוח רוצה שנתקשר אליו"),
        ("hi", "ग्राहक चाहता है कि हम उसे फोन करें"),
        ("it", "Il cliente vuole che lo richiamiamo lunedì, ma non prima delle due"),
        ("ja", "客は月曜日に電話を返してほしい"),
        ("ko", "고객은 월요일에 전화를 받고 싶어 한다"),
        ("nl", "De klant wil dat we hem maandag terugbellen"),
        ("pl", "Klient chce, żebyśmy oddzwonili do niego w poniedziałek"),
        ("pt", "O cliente quer que lhe liguem na segunda-feira, não antes"),
        ("ru", "Клиент просит перезвонить в понедельник"),
        ("sv", "Kunden vill att vi ringer tillbaka på måndag"),
        ("th", "ลูกค้าอยากให้โทรกลับวันจันทร์"),
        ("tr", "Müşteri pazartesi günü için daha sonra geri aranmak istiyor"),
        ("uk", "Клієнт хоче, щоб йому передзвонили"),
        ("zh", "客户希望星期一回电话"),
    ],
)
def test_a_text_tells_its_language(language, text):
    assert guess(text) == language


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4711",
        "🦊",
        "Tomás",
        "Müller rang",
        "Physik",
        "a naïve café",
        "Die Hard",
        "Ben?",
        "El Greco exhibition tickets",
        "Prefers Los Angeles",
    ],
)
@pytest.mark.parametrize("default", ["en", "cs"])
def test_what_does_not_tell_is_of_the_default(text, default):
    assert guess(text, default) == default


@pytest.mark.parametrize(
    "text", ["Lives in Los Angeles", "Saw Le Havre and El Escorial with them", "Ben was there"]
)
def test_foreign_names_do_not_make_a_foreign_text(text):
    assert guess(text) == "en"


def test_words_of_a_script_that_is_not_the_defaults_are_of_the_languages_of_that_script():
    assert guess("Physik", "ja") == "en"
    assert guess("сервер", "uk") == "uk"
    assert guess("сервер", "en") == "ru"
    assert guess("ქართული ენა", "en") == "en"


def test_what_is_likely_needs_less_to_be_told():
    assert guess("Wer bäckt") == "en"
    assert guess("Wer bäckt", likely=["de"]) == "de"
    assert guess("que animal", likely=["pt"]) == "pt"
    assert guess("who bakes", likely=["de"]) == "en"


@settings(deadline=None)  # what a language needs is loaded for the first text
@given(st.text(), st.sampled_from(["en", "de", "ja", "xx"]))
def test_any_text_has_a_language_and_the_order_of_words_does_not_matter(text, default):
    words = words_of(text)[:64]
    language = language_of(words, default)
    assert language
    assert language_of(words[::-1], default) == language
