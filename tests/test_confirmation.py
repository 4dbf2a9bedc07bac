"""What a `cnf` claim binds a token to (RFC 7800), and when such a token is refused."""

import pytest

from asgi_mcp_auth._oauth.confirmation import CERTIFICATE, DPOP_KEY, Confirmation, read_confirmation
from asgi_mcp_auth.errors import InvalidToken, Reason

T = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
U = "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"
BOTH = (DPOP_KEY, CERTIFICATE)


@pytest.mark.requirement("RS-85")
@pytest.mark.parametrize(
    ("cnf", "methods", "expected"),
    [
        pytest.param(None, (), None, id="absent"),
        pytest.param(None, BOTH, None, id="absent, with both mechanisms"),
        pytest.param({"jkt": T}, (DPOP_KEY,), Confirmation(T), id="a DPoP key"),
        pytest.param({"x5t#S256": T}, (CERTIFICATE,), Confirmation(None, T), id="a certificate"),
        pytest.param({"jkt": T, "x5t#S256": U}, BOTH, Confirmation(T, U), id="both"),
        pytest.param({"jkt": T, "jwk": {}}, BOTH, Confirmation(T), id="a further member is ignored"),
        pytest.param({"jkt": T, "x5t#S256": None}, BOTH, Confirmation(T), id="null is absent"),
    ],
)
def test_the_members_that_the_resource_verifies_are_returned(
    cnf: object, methods: tuple[str, ...], expected: Confirmation | None
) -> None:
    assert read_confirmation(cnf, methods) == expected


BOUND, MALFORMED = Reason.SENDER_CONSTRAINED, Reason.MALFORMED_CLAIM


@pytest.mark.requirement("RS-85")
@pytest.mark.parametrize(
    ("cnf", "methods", "reason"),
    [
        pytest.param({"jkt": T}, (), BOUND, id="no mechanism"),
        pytest.param({"jkt": T}, (CERTIFICATE,), BOUND, id="another mechanism"),
        pytest.param({"jkt": T, "x5t#S256": U}, (DPOP_KEY,), BOUND, id="a certificate too, which is not verified"),
        pytest.param({"jkt": T, "x5t#S256": U}, (CERTIFICATE,), BOUND, id="a key too, which is not verified"),
        pytest.param({"x": T}, BOTH, BOUND, id="an unknown member alone"),
        pytest.param({}, BOTH, BOUND, id="empty"),
        pytest.param({"jkt": None}, BOTH, BOUND, id="null"),
        pytest.param([T], BOTH, BOUND, id="an array"),
        pytest.param(T, BOTH, BOUND, id="a string"),
        pytest.param(False, BOTH, BOUND, id="false"),
        pytest.param({"jkt": 1}, BOTH, MALFORMED, id="a number"),
        pytest.param({"jkt": ""}, BOTH, MALFORMED, id="an empty thumbprint"),
        pytest.param({"jkt": T + "="}, BOTH, MALFORMED, id="padding"),
        pytest.param({"jkt": T[:-1]}, BOTH, MALFORMED, id="too short"),
        pytest.param({"jkt": T, "x5t#S256": []}, BOTH, MALFORMED, id="one of two is malformed"),
    ],
)
def test_a_bound_token_that_cannot_be_verified_is_refused(
    cnf: object, methods: tuple[str, ...], reason: Reason
) -> None:
    with pytest.raises(InvalidToken) as refused:
        read_confirmation(cnf, methods)
    assert refused.value.reason is reason
