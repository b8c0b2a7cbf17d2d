import os

import pytest

from jkd.data import safe_xml
from jkd.data.safe_xml import Refused

LAUGHS = '<!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><lolz>&b;</lolz>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/passwd">]><a>&f;</a>'


def test_elements_attributes_and_text_are_read():
    top = safe_xml.parse("<?xml version='1.0'?><a b='1'><!-- no --><c>caf\u00e9 &amp; &#65;</c><c/></a>".encode())
    assert top.get("b") == "1" and [one.text for one in top.findall("c")] == ["caf\u00e9 & A", None]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (LAUGHS, "document type"),
        (OUTSIDE, "document type"),
        ('<!DOCTYPE a SYSTEM "http://localhost/a.dtd"><a/>', "document type"),
        ("<a>&b;</a>", "not well-formed"),
        ("<a><b></a>", "not well-formed"),
        ("", "not well-formed"),
        ("<a/><b/>", "not well-formed"),
        ("<?xml version='1.0' encoding='nonesuch'?><a/>", "not well-formed"),
        ("<a>" * 40 + "</a>" * 40, "nested over 32"),
        ("\0\x01\x02", "not well-formed"),
    ],
)
def test_everything_else_is_refused(text, why):
    with pytest.raises(Refused, match=why):
        safe_xml.parse(text.encode())


def test_too_many_elements_are_refused(monkeypatch):
    monkeypatch.setattr(safe_xml, "MOST_ELEMENTS", 100)
    safe_xml.parse(b"<a>" + b"<b/>" * 99 + b"</a>")
    with pytest.raises(Refused, match="over 100 elements"):
        safe_xml.parse(b"<a>" + b"<b/>" * 100 + b"</a>")


def test_no_more_is_read_than_allowed(tmp_path):
    (tmp_path / "a.xml").write_text("<a>" + " " * 1000 + "</a>")
    with pytest.raises(Refused, match="over 100 bytes"):
        safe_xml.read(tmp_path / "a.xml", most=100)
    with pytest.raises(Refused, match="No such file"):
        safe_xml.read(tmp_path / "b.xml")


def test_random_bytes_are_refused_and_nothing_else_is_raised():
    for _ in range(200):
        with pytest.raises(Refused):
            safe_xml.parse(b"<a>" + os.urandom(50))
