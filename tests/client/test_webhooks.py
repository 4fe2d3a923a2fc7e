"""Deliveries that are ours, and those that are not."""

from __future__ import annotations

import base64

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cstar_client import InvalidSignature
from cstar_client.webhooks import verify
from store.webhooks import signing

# The example of the specification's reference libraries.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"test": 2432232314}'
SENT_AT = 1614265330
HEADERS = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": str(SENT_AT),
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
OTHER = "whsec_" + base64.b64encode(b"another secret of ours").decode()


def test_the_example_of_the_specification_is_accepted() -> None:
    assert verify(HEADERS, BODY, SECRET, now=SENT_AT) == {"test": 2432232314}


def test_names_of_headers_have_no_case() -> None:
    headers = {name.title(): value for name, value in HEADERS.items()}

    assert verify(headers, BODY, SECRET, now=SENT_AT)


def test_one_of_several_signatures_is_enough() -> None:
    value = f"v1,AAAA v2,else {HEADERS['webhook-signature']}"

    assert verify(HEADERS | {"webhook-signature": value}, BODY, SECRET, now=SENT_AT)


def test_one_of_several_secrets_is_enough() -> None:
    assert verify(HEADERS, BODY, [OTHER, SECRET], now=SENT_AT)


@pytest.mark.parametrize("distance_s", [-301, 301])
def test_a_delivery_that_is_too_old_or_too_new_is_refused(distance_s: int) -> None:
    with pytest.raises(InvalidSignature, match="300 s"):
        verify(HEADERS, BODY, SECRET, now=SENT_AT + distance_s)


def test_another_body_is_refused() -> None:
    with pytest.raises(InvalidSignature, match="fits"):
        verify(HEADERS, BODY + b" ", SECRET, now=SENT_AT)


def test_another_secret_is_refused() -> None:
    with pytest.raises(InvalidSignature, match="fits"):
        verify(HEADERS, BODY, OTHER, now=SENT_AT)


@pytest.mark.parametrize("name", HEADERS)
def test_a_changed_header_is_refused(name: str) -> None:
    changed = HEADERS | {name: HEADERS[name] + "1"}
    with pytest.raises(InvalidSignature):
        verify(changed, BODY, SECRET, now=SENT_AT)


@pytest.mark.parametrize("name", HEADERS)
def test_a_missing_header_is_named(name: str) -> None:
    headers = {key: value for key, value in HEADERS.items() if key != name}
    with pytest.raises(InvalidSignature, match=name):
        verify(headers, BODY, SECRET, now=SENT_AT)


ANYTHING = st.text(st.characters())  # surrogates too
GIVEN = {
    "webhook-id": ANYTHING,
    "webhook-timestamp": ANYTHING | st.integers().map(str) | st.just(str(SENT_AT)),
    "webhook-signature": ANYTHING | ANYTHING.map("v1,{}".format),
}


@given(st.fixed_dictionaries({}, optional=GIVEN), st.binary())
@example(HEADERS | {"webhook-timestamp": "9" * 5000}, BODY)
@example(HEADERS | {"webhook-timestamp": "9" * 400}, BODY)
@example(HEADERS | {"webhook-id": "\udcff"}, BODY)
@example(HEADERS | {"webhook-signature": "v1,\udcff"}, BODY)
def test_whatever_the_headers_are_the_refusal_is_the_one_that_is_documented(
    headers: dict[str, str], body: bytes
) -> None:
    with pytest.raises(InvalidSignature):
        verify(headers, body, SECRET, now=SENT_AT)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_not base64"])
def test_a_secret_that_is_none_is_an_error(secret: str) -> None:
    with pytest.raises(ValueError, match="secret"):
        verify(HEADERS, BODY, secret, now=SENT_AT)


def test_no_secret_at_all_accepts_nothing() -> None:
    with pytest.raises(InvalidSignature):
        verify(HEADERS, BODY, [], now=SENT_AT)


def test_what_the_service_signs_is_accepted_by_both_secrets_of_a_rotation() -> None:
    new, old = signing.new_secret(), signing.new_secret()
    headers = signing.headers([new, old], message_id="msg_1", timestamp=SENT_AT, body=BODY)

    for secret in (new, old):
        assert verify(headers, BODY, secret, now=SENT_AT)
