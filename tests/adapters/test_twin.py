"""What every twin shares: documents outlive a kill, faults strike as planned, and HTTP serving changes nothing."""

from __future__ import annotations

import threading
from pathlib import Path

import attrs
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iom_adapters._twin import Documents, Fault, Faults, TwinRequest, TwinResponse, answer, serve, transport


@attrs.define
class Counter:
    """A twin that counts what it applied and echoes what it was asked."""

    name: str = "counter"
    faults: Faults = attrs.field(factory=Faults)
    applied: int = 0

    def handle(self, request: TwinRequest) -> TwinResponse:
        self.applied += 1
        if request.path == "/none":
            return TwinResponse(204)
        return TwinResponse.of(200, {"path": request.path, "query": request.query, "body": request.body.decode()})


def ask(method: str = "GET", path: str = "/a") -> TwinRequest:
    return TwinRequest(method, path, (), {}, b"")


class TestDocuments:
    def test_only_what_was_committed_survives(self, tmp_path: Path) -> None:
        documents = Documents(tmp_path / "state.db")
        documents.put("order", "1", {"name": "Zoë"})
        documents.put("order", "2", {"name": "gone"})
        documents.commit()
        documents.delete("order", "2")
        assert documents.next("order", 100) == 100
        documents.commit()
        documents.put("order", "3", {"name": "never"})
        again = Documents(tmp_path / "state.db")  # the first is not closed: its process was killed
        assert again.all("order") == [{"name": "Zoë"}]
        assert again.next("order", 100) == 101
        documents.close()
        again.close()

    def test_memory_behaves_the_same(self) -> None:
        documents = Documents()
        documents.put("order", "1", {"a": 1})
        documents.delete("order", "2")
        documents.commit()
        assert (documents.get("order", "1"), documents.get("order", "2"), documents.keys("order")) == (
            {"a": 1},
            None,
            ["1"],
        )
        documents.close()


class TestFaults:
    def test_a_lost_answer_was_applied_and_a_refused_one_was_not(self) -> None:
        twin = Counter()
        twin.faults.plan(Fault("lost"), Fault("refuse"))
        assert answer(twin, ask()) is None
        assert twin.applied == 1
        assert answer(twin, ask()) is None
        assert twin.applied == 1
        assert answer(twin, ask()) is not None
        assert [status for _, _, status in twin.faults.log] == [0, 0, 200]

    def test_a_status_applies_nothing(self) -> None:
        twin = Counter()
        twin.faults.plan(Fault("status", status=429, headers={"retry-after": "1"}))
        assert answer(twin, ask()) == TwinResponse(429, {"retry-after": "1"}, b"")
        assert twin.applied == 0

    def test_a_delay_answers_in_the_end(self) -> None:
        twin = Counter()
        twin.faults.plan(Fault("delay", seconds=0.001))
        assert answer(twin, ask()) is not None

    @given(st.integers(0, 5), st.integers(1, 3))
    def test_a_fault_strikes_the_calls_it_was_planned_for(self, after: int, times: int) -> None:
        twin = Counter()
        twin.faults.plan(Fault("refuse", "PUT", "/orders", after=after, times=times))
        struck = [answer(twin, ask("PUT", "/orders/1")) is None for _ in range(10)]
        assert answer(twin, ask("GET", "/orders/1")) is not None
        assert struck == [after <= index < after + times for index in range(10)]

    def test_an_unknown_kind_is_an_error(self) -> None:
        with pytest.raises(ValueError):
            Fault("explode")

    def test_calls_are_counted_from_many_threads(self) -> None:
        twin = Counter()
        twin.faults.plan(Fault("refuse", times=100))
        results: list[TwinResponse | None] = []
        threads = [
            threading.Thread(target=lambda: results.extend(answer(twin, ask()) for _ in range(50))) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (twin.faults.calls, results.count(None)) == (200, 100)

    def test_the_log_is_bounded(self) -> None:
        twin = Counter()
        for _ in range(10_050):
            answer(twin, ask())
        assert len(twin.faults.log) <= 10_000


class TestServing:
    def test_http_and_in_process_answers_are_the_same(self) -> None:
        twin = Counter()
        serving = serve(twin)
        try:
            with httpx.Client() as real, httpx.Client(transport=transport(("twin.test", twin))) as inside:
                for method, path in (("GET", "/a?b=%2B1&c=d+e"), ("POST", "/a"), ("GET", "/none")):
                    body = b"hello" if method == "POST" else None
                    there = real.request(method, serving.url + path, content=body)
                    here = inside.request(method, f"https://twin.test{path}", content=body)
                    assert (there.status_code, there.content) == (here.status_code, here.content)
        finally:
            serving.close()

    def test_a_cut_connection_is_seen_as_one(self) -> None:
        twin = Counter()
        twin.faults.plan(Fault("lost"), Fault("lost"))
        serving = serve(twin)
        try:
            with httpx.Client() as real, pytest.raises(httpx.TransportError):
                real.get(serving.url)
            with httpx.Client(transport=transport(("twin.test", twin))) as inside, pytest.raises(httpx.ReadError):
                inside.get("https://twin.test/")
        finally:
            serving.close()

    def test_a_body_of_unknown_length_is_refused(self) -> None:
        serving = serve(Counter())
        try:
            with httpx.Client() as real:
                assert real.post(serving.url, content=iter([b"a", b"b"])).status_code == 411
        finally:
            serving.close()

    def test_an_unknown_host_does_not_exist(self) -> None:
        with httpx.Client(transport=transport()) as inside, pytest.raises(httpx.ConnectError):
            inside.get("https://nobody.test/")
