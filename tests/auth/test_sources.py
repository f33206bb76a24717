"""Where keys come from: a password, the metadata service, a source of one's own."""

import json

import pytest
from asking import locals_of

from ief_async import (
    ConfigurationError,
    EcsMetadata,
    PasswordCredentials,
)
from ief_async._auth.sources import Scope
from ief_async._messages import Reply

VALUE = "canary-MIIDkgYJKoZIhvcNAQcCoIIDgzCCA38CAQExDTALBglghkgBZQMEAgEwggE0+/=="


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"domain": ""}, r"domain=\) must not be empty"),
        ({"user": None}, r"user=\) must be a string, got NoneType"),
        ({"password": b"x"}, r"password=\) must be a string, got bytes"),
        ({"password": ""}, r"password=\) must not be empty"),
        ({"project": 7}, r"project=\) must be a string, got int"),
        ({"passcode": "123456"}, "both of passcode= and user_id="),
        ({"user_id": "i"}, "both of passcode= and user_id="),
    ],
)
def test_wrong_password_credentials_are_refused_unshown(wrong, words):
    """What can't log in is refused by name; the password is in no frame of the refusal."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        PasswordCredentials(**{"domain": "d", "user": "u", "password": VALUE, **wrong})

    assert not [shown for shown in locals_of(caught.value) if "canary" in shown]


def test_scrub_of_a_password_takes_the_code_too():
    """Neither password nor passcode stays in what IAM sends back."""
    credentials = PasswordCredentials(
        domain="d", user="u", password="canary-password", user_id="i", passcode="canary-code"
    )

    assert "*** ***" == credentials.scrub("canary-password canary-code")


@pytest.mark.parametrize("zone", ["CST-8", "EST5"], indirect=True)
@pytest.mark.usefixtures("zone")
def test_lifetime_of_a_key_is_measured_by_a_date_without_a_zone():
    """The metadata service's own Date tells how long its keys last, in the asctime form, too."""
    flow = EcsMetadata().obtain(Scope(iam_endpoint="https://iam"))
    next(flow)
    flow.send(Reply(status=404, headers={}, body=b""))
    said = {
        "access": "a",
        "secret": "s",
        "securitytoken": "t",
        "expires_at": "2026-01-02T01:00:00Z",
    }
    dated = {"date": "Fri Jan  2 00:00:00 2026"}
    with pytest.raises(StopIteration) as end:
        flow.send(Reply(status=200, headers=dated, body=json.dumps({"credential": said}).encode()))

    assert 3_600 == end.value.value.lifetime


async def test_metadata_over_http_is_for_its_own_address():
    """The metadata service's own address, and loopback, are all that may be plain http."""
    with pytest.raises(ConfigurationError, match="EcsMetadata"):
        EcsMetadata(endpoint="http://example.com")
    assert "http://169.254.169.254" == EcsMetadata().endpoint
