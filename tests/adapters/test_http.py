"""The session: exact JSON, faults by whose fault it is, limits obeyed, no secret in anything that may be printed."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iom_adapters import _http
from iom_adapters._auth import FixedHeader
from iom_adapters._http import Reply, Session, decode, encode, retry_after
from iom_core.errors import Misconfigured, Misunderstood, Unavailable

SECRET = "s3cr3t-t0k3n"
Answer = Callable[[httpx.Request], httpx.Response]

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def session(answer: Answer, **more: Any) -> Session:
    client = httpx.Client(transport=httpx.MockTransport(answer))
    return Session("shop", "https://shop.test/api", FixedHeader("X-Auth-Token", SECRET), client, **more)


def ok(_request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json={})


class TestJson:
    @given(json_values)
    def test_what_is_sent_is_read_back_digit_by_digit(self, value: Any) -> None:
        def with_whole_numbers(each: Any) -> Any:  # 5 and Decimal(5) are the same JSON number
            if isinstance(each, Decimal):
                return each.normalize() if each else Decimal(0)
            if isinstance(each, int) and not isinstance(each, bool):
                return with_whole_numbers(Decimal(each))
            if isinstance(each, list):
                return [with_whole_numbers(one) for one in each]
            if isinstance(each, dict):
                return {name: with_whole_numbers(one) for name, one in each.items()}
            return each

        from decimal import localcontext

        with localcontext() as context:
            context.prec = 100
            assert with_whole_numbers(decode(encode(value))) == with_whole_numbers(value)

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (Decimal("0.1"), "0.1"),
            (Decimal("361.9500"), "361.9500"),
            (Decimal("12345678901234567890.123456789"), "12345678901234567890.123456789"),
            (Decimal("1E+3"), "1000"),
            (Decimal("1E-7"), "0.0000001"),
            (
                {"a": [Decimal("2.50"), True, None, 3, "é"], "b": {}, "c": []},
                '{"a":[2.50,true,null,3,"é"],"b":{},"c":[]}',
            ),
        ],
    )
    def test_decimals_keep_their_digits(self, value: Any, text: str) -> None:
        assert encode(value).decode() == text

    def test_half_a_surrogate_pair_is_escaped(self) -> None:
        assert json.loads(encode({"\ud800": ["é\udfff"]})) == {"\ud800": ["é\udfff"]}

    @pytest.mark.parametrize("value", [Decimal("NaN"), Decimal("Infinity"), float("nan")])
    def test_numbers_that_are_none_are_refused(self, value: Any) -> None:
        with pytest.raises(ValueError):
            encode({"a": value})

    @pytest.mark.parametrize("value", [{1: 2}, object(), {"a": {1, 2}}, b"bytes"])
    def test_what_json_does_not_know_is_refused(self, value: Any) -> None:
        with pytest.raises(TypeError):
            encode(value)

    @pytest.mark.parametrize("text", [b"", b"{", b"NaN", b"[Infinity]", b"[" * 100_000, b"\xff", b"1" * 5_000])
    def test_hostile_answers_are_misunderstood_and_nothing_worse(self, text: bytes) -> None:
        with pytest.raises(Misunderstood):
            Reply(200, {}, text).json("shop")


class TestFaults:
    @pytest.mark.parametrize(
        ("status", "fault"),
        [(401, Misconfigured), (403, Misconfigured), (429, Unavailable), (500, Unavailable), (503, Unavailable)],
    )
    def test_status_says_whose_fault_it_is(self, status: int, fault: type[Exception]) -> None:
        with pytest.raises(fault):
            session(lambda _: httpx.Response(status)).call("GET", "/orders")

    @pytest.mark.parametrize("status", [200, 204, 301, 400, 404, 409, 422])
    def test_other_statuses_are_for_the_adapter_to_read(self, status: int) -> None:
        assert session(lambda _: httpx.Response(status)).call("GET", "/orders").status == status

    def test_no_answer_is_unavailable(self) -> None:
        def cut(request: httpx.Request) -> httpx.Response:
            raise httpx.ReadError("cut", request=request)

        with pytest.raises(Unavailable, match="ReadError"):
            session(cut).call("GET", "/orders")

    def test_a_redirect_is_never_followed_even_by_a_client_that_would(self) -> None:
        asked: list[str] = []

        def redirect(request: httpx.Request) -> httpx.Response:
            asked.append(str(request.url))
            return httpx.Response(302, headers={"location": "https://evil.test/"})

        talk = session(redirect)
        talk.client.follow_redirects = True
        assert talk.call("GET", "/orders").status == 302
        assert asked == ["https://shop.test/api/orders"]

    def test_a_link_to_another_host_is_not_followed(self) -> None:
        for link in (
            "https://evil.test/x",
            "https://shop.test.evil.test/",
            "http://shop.test/api",
            "https://shop.test:8443/",
        ):
            with pytest.raises(Misunderstood, match="another host"):
                session(ok).call("GET", link)

    def test_a_link_to_the_same_host_is_followed(self) -> None:
        assert session(ok).call("GET", "https://shop.test/api/orders?page=2").status == 200

    def test_an_endless_answer_is_cut_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_http, "MAX_BODY", 1_000)
        with pytest.raises(Misunderstood, match="larger than"):
            session(lambda _: httpx.Response(200, content=b"x" * 1_001)).call("GET", "/orders")


class TestLimits:
    def test_a_throttled_session_fails_at_once_until_the_pause_is_over(self) -> None:
        clock, answers = Clock(), [httpx.Response(429, headers={"retry-after": "7"}), httpx.Response(200)]
        talk = session(lambda _: answers.pop(0), clock=clock)
        with pytest.raises(Unavailable) as first:
            talk.call("GET", "/orders")
        clock.now += timedelta(seconds=3)
        with pytest.raises(Unavailable) as second:
            talk.call("GET", "/orders")
        clock.now += timedelta(seconds=4)
        assert talk.call("GET", "/orders").status == 200
        assert (first.value.retry_after, second.value.retry_after, talk.calls) == (7.0, 4.0, 2)

    def test_retry_after_as_a_date_counts_as_unknown(self) -> None:
        assert retry_after(Reply(429, {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, b"")) is None


class TestAddresses:
    @pytest.mark.parametrize(
        "url",
        ["http://shop.com", "ftp://shop.com", "shop.com", "https://user:pw@shop.com", "https://", "https://x\x00"],
    )
    def test_only_https_without_a_password_is_accepted(self, url: str) -> None:
        with pytest.raises(Misconfigured) as raised:
            Session("shop", url, FixedHeader("X", "y"))
        assert "pw" not in str(raised.value)

    @pytest.mark.parametrize(
        "url", ["http://127.0.0.1:8080", "http://localhost", "http://shop.test", "https://shop.com"]
    )
    def test_this_machine_and_test_hosts_may_be_plain(self, url: str) -> None:
        Session("shop", url, FixedHeader("X", "y"))

    def test_the_default_client_checks_certificates_and_gives_up_in_time(self) -> None:
        with _http.client() as client:
            assert client.timeout == httpx.Timeout(30.0, connect=10.0)
            assert not client.follow_redirects


class TestSecrets:
    """Whatever fails, nothing that can be printed holds the secret."""

    def test_repr_hides_it(self) -> None:
        talk = session(ok, default_headers={"Authorization": SECRET})
        assert SECRET not in repr(talk)
        assert SECRET not in repr(talk.auth)

    @pytest.mark.parametrize("status", [401, 403, 429, 500])
    def test_errors_hide_it(self, status: int) -> None:
        with pytest.raises((Misconfigured, Unavailable)) as raised:
            session(lambda request: httpx.Response(status, text=str(request.headers))).call("GET", f"/o?sig={SECRET}")
        assert SECRET not in "".join(traceback.format_exception(raised.value))

    @pytest.mark.parametrize("bad", [f"{SECRET}\n", f"{SECRET}é", f"{SECRET}\x00"])
    def test_a_secret_that_cannot_be_sent_is_not_quoted(self, bad: str) -> None:
        talk = Session("shop", "https://shop.test", FixedHeader("X-Auth-Token", bad), httpx.Client())
        with pytest.raises(Misconfigured, match="X-Auth-Token") as raised:
            talk.call("GET", "/orders")
        assert SECRET not in "".join(traceback.format_exception(raised.value))
