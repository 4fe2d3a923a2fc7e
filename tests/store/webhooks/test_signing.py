"""Signatures are those that others verify."""

from __future__ import annotations

import base64
import time

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from store.webhooks import signing

BODY = b'{"type":"job.succeeded","data":{"id":"job_1"}}'


def headers_by(*secrets: str) -> dict[str, str]:
    return signing.headers(secrets, message_id="msg_1", timestamp=int(time.time()), body=BODY)


def test_the_reference_implementation_verifies_a_signature() -> None:
    secret = signing.new_secret()
    assert Webhook(secret).verify(BODY, headers_by(secret))["data"] == {"id": "job_1"}


def test_the_example_of_the_specification_is_signed_as_it_says() -> None:
    made = signing.headers(
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp=1614265330,
        body=b'{"test": 2432232314}',
    )
    assert made["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_during_a_rotation_both_secrets_verify() -> None:
    new, old = signing.new_secret(), signing.new_secret()
    headers = headers_by(new, old)
    for secret in (new, old):
        Webhook(secret).verify(BODY, headers)


@pytest.mark.parametrize("change", ["body", "id", "secret"])
def test_whatever_is_changed_is_not_verified(change: str) -> None:
    secret = signing.new_secret()
    headers = headers_by(secret) | ({"webhook-id": "msg_2"} if change == "id" else {})
    body = BODY + b" " if change == "body" else BODY
    verifier = Webhook(signing.new_secret() if change == "secret" else secret)
    with pytest.raises(WebhookVerificationError):
        verifier.verify(body, headers)


def test_secrets_are_long_enough_and_never_the_same() -> None:
    secrets = {signing.new_secret() for _ in range(100)}
    assert len(secrets) == 100
    for secret in secrets:
        assert secret.startswith("whsec_")
        assert 24 <= len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) <= 64
