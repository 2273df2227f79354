"""Which texts are an e-mail address, and that one mailbox has one spelling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.base.errors import Invalid
from atoll.domain.email import check_email, domain_of


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("ann@example.com", "ann@example.com"),
        (" Ann.B+tag@Example.COM ", "ann.b+tag@example.com"),
        ("root@host", "root@host"),
        ("root@my_host-1", "root@my_host-1"),
        ("böb@example.com", "böb@example.com"),
        ("'o'hara%x@example.com", "'o'hara%x@example.com"),
    ],
)
def test_kept_in_one_spelling(text: str, kept: str) -> None:
    assert check_email(text) == kept
    assert check_email(kept) == kept


@pytest.mark.parametrize(
    "text",
    [
        "", "@", "ann", "ann@", "@example.com", "a@b@example.com", "ann@exa mple.com",
        "ann@example.com\nBcc: eve@evil.example", "ann@example.com\r", "ann@example.com\r\n",
        "ann\0@example.com", "ann@example.com\u2028", "ann@example.com\u0085", "a\u00a0n@example.com",
        "a\u200bnn@example.com", "a\u202enn@example.com", "ann@example.com,eve@evil.example",
        "<ann@example.com>", "Ann <ann@example.com>", '"a n"@example.com', "ann@[127.0.0.1]",
        ".ann@example.com", "a..b@example.com", "ann.@example.com", "ann@.example.com",
        "ann@example..com", "ann@-example.com", "ann@example.com.", "ann@exämple.com",
        "mar\u212a@example.com",  # the Kelvin sign, which is k in lower case
        "\uff41nn@example.com", "ann@example\uff0ecom", "a\ud800@example.com",
        "a" * 65 + "@example.com", "ä" * 33 + "@example.com", "ann@" + "a" * 191,
        "\tann@example.com", "a:b@example.com", "a;b@example.com", "a\\b@example.com",
    ],
)  # fmt: skip
def test_no_address(text: str) -> None:
    with pytest.raises(Invalid, match="is not an e-mail address"):
        check_email(text)


@given(st.text(max_size=40), st.text(max_size=40))
def test_what_is_taken_is_one_line_with_one_at_and_stays_as_it_is(local: str, domain: str) -> None:
    try:
        email = check_email(f"{local}@{domain}")
    except Invalid:
        return
    assert email == email.lower() == check_email(email)
    assert email.count("@") == 1
    assert email.isprintable()
    assert not set(email) & set(' \r\n\0<>,;:"()[]\\')
    assert domain_of(email).isascii()
