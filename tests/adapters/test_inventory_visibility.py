"""Inventory Visibility: promises are kept once, whatever is lost on the way, and names come back as they please."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iom_adapters._twin import Fault, TwinRequest, TwinResponse, serve, transport
from iom_adapters.inventory_visibility import InventoryVisibility, InventoryVisibilityConfig, connect, wire
from iom_adapters.inventory_visibility.adapter import BY_ID, BY_QUANTITY, Change, Plan
from iom_adapters.inventory_visibility.auth import ENTRA_SCOPE
from iom_adapters.inventory_visibility.book import Book, Entry, FileBook, MemoryBook, State
from iom_adapters.inventory_visibility.twin import InventoryVisibilityTwin
from iom_core.errors import Fault as Broken
from iom_core.errors import Misconfigured, Misunderstood, Unavailable
from iom_core.outcome import failed
from iom_core.ports import Inventory
from iom_core.testing import VirtualClock, conformance
from iom_core.values import ProductId, SourceId

START = datetime(2022, 2, 1, 9, 30, tzinfo=UTC)
SEATTLE, CHICAGO, RENO = SourceId("Seattle"), SourceId("Chicago"), SourceId("Reno")
CHAIR, RED, BLUE = ProductId("CHAIR"), ProductId("SHIRT-RED"), ProductId("SHIRT-BLUE")
ENTRA, SECURITY, ROOT = "/tenant/oauth2/v2.0/token", "/securityservice/token", "/api/environment/env-1"
GROUPS = {"channel": "Online", "customerGroup": "VIP", "region": "US"}
PLACES = {"Seattle": ("usmf", "1", "11"), "Chicago": ("usmf", "1", "12"), "Reno": ("demf", "2", "21")}
SAMPLES = Path(__file__).parents[3] / "shared" / "specs" / "fno" / "inventory-visibility-samples.json"


class Recording(InventoryVisibilityTwin):
    """A twin that remembers the bodies it was sent, and can answer what it is told to."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.sent: list[tuple[str, Any]] = []
        self.instead: dict[str, TwinResponse] = {}

    def handle(self, request: TwinRequest) -> TwinResponse:
        path = request.path.removeprefix(ROOT)
        if path != request.path and len(request.body) > 1:
            self.sent.append((path, json.loads(request.body)))
        return self.instead.get(path) or super().handle(request)


class Environment:
    """A twin and an adapter on one clock, over the wire."""

    def __init__(
        self, *, book: Book | None = None, settings: Mapping[str, object] | None = None, **options: Any
    ) -> None:
        self.clock = VirtualClock(START)
        self.twin = Recording(now=self.clock, **{"gateway": "https://gw.us-il101.gateway.powerapps.com", **options})
        hosts = ("iv.test", "login.test", "security.test", "gw.us-il101.gateway.powerapps.com")
        self.client = httpx.Client(transport=transport(*((host, self.twin) for host in hosts)))
        self.book = book if book is not None else MemoryBook()
        self.settings: dict[str, object] = {
            "base_url": "https://iv.test",
            "environment": "env-1",
            "client_id": "iom",
            "client_secret": "secret",
            "token_url": f"https://login.test{ENTRA}",
            "security_url": "https://security.test/token",
            "sources": {
                name: {"organization": organization, "site": site, "location": location}
                for name, (organization, site, location) in PLACES.items()
            },
            "products": {
                "SHIRT-RED": {"product": "SHIRT", "dimensions": {"colorId": "red"}},
                "SHIRT-BLUE": {"product": "SHIRT", "dimensions": {"colorId": "blue"}},
            },
            "shipped_as": {"pos.outbound": 1},
            "schedule_days": 7,
            **(settings or {}),
        }
        self.restart()

    def restart(self) -> None:
        """Connect anew; what the adapter kept in memory but its book is gone."""
        self.iv: InventoryVisibility = connect(self.settings, client=self.client, clock=self.clock, book=self.book)

    def put(self, source: str, product: str, quantity: Decimal | int, **dimensions: str) -> None:
        self.twin.put(*PLACES[source], product, quantity, **dimensions)

    def levels(self, source: str = "Seattle", product: str = "CHAIR") -> tuple[Decimal | int, Decimal | int]:
        """Return what is on hand and what of it is reserved."""
        place = PLACES[source]
        return self.twin.on_hand(*place, product), self.twin.reserved(*place, product)

    def raw(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """Send a request of the test's own, with a token."""
        headers = {**self.iv._http.auth.headers(), "Api-Version": "1.0", **options.pop("headers", {})}
        content = {} if body is None else {"json": body}
        return self.client.request(method, f"https://iv.test{ROOT}{path}", headers=headers, **content, **options)

    def bodies(self, path: str) -> list[Any]:
        return [body for sent, body in self.twin.sent if sent == path]


@pytest.fixture
def env() -> Environment:
    return Environment(schedule_days=7)


def until_done(step: Callable[[], object], before_retry: Callable[[], None] = lambda: None) -> None:
    """Do a step as an engine does: again while the service is unavailable."""
    for _ in range(20):
        try:
            step()
        except Unavailable:
            before_retry()
            continue
        return
    raise AssertionError("the step never ends")


# --- the port's promises -----------------------------------------------------------------------------------


class Shelf(Environment):
    """Inventory Visibility as the conformance kit asks for it."""

    def __init__(self, keep: bool, **more: Any) -> None:
        self._keep = keep
        self._cut: list[Fault] = []
        super().__init__(**more)

    @property
    def inventory(self) -> Inventory:
        return self.iv

    def restart(self) -> None:
        if not self._keep:
            self.book = MemoryBook()
        super().restart()

    def go_down(self) -> None:
        self._cut.append(Fault("refuse", times=10_000))
        self.twin.faults.plan(*self._cut)

    def come_back(self) -> None:
        for each in self._cut:
            each.times = 0

    def lose_next_answer(self) -> None:
        self.twin.faults.plan(Fault("lost", method="POST", path="/onhand"))

    def on_hand(self, source: str, product: str) -> Decimal:
        return self.twin.on_hand(*PLACES[source], product)

    def reserved(self, source: str, product: str) -> Decimal:
        return self.twin.reserved(*PLACES[source], product)


HARNESSES: dict[str, dict[str, Any]] = {
    "as documented": {},
    "book lost with its process": {"keep": False},
    "refusals are 400": {"refused_status": 400},
    "refusals stick to their id": {"refusals_stick": True},
    "no reservation id again": {"settings": {"release_with": BY_QUANTITY}, "replays_answer": False, "book": True},
    "changes are answered with nothing": {"quiet": True},
    "shipped as negative inbound": {"settings": {"shipped_as": {"pos.inbound": -1}}},
}


class TestConformance(conformance.InventoryConformance):
    @pytest.fixture(params=list(HARNESSES))
    def harness(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[conformance.InventoryHarness]:
        options = dict(HARNESSES[request.param])
        book = FileBook(tmp_path / "book.db") if options.pop("book", False) else None
        yield Shelf(options.pop("keep", True), book=book, **options)
        if book is not None:
            book.close()


# --- exactly once ------------------------------------------------------------------------------------------

LIFE: tuple[tuple[str, Callable[[InventoryVisibility], object], tuple[int, int]], ...] = (
    ("reserve 3", lambda iv: iv.reserve("K", SEATTLE, CHAIR, Decimal(3)).unwrap(), (10, 3)),
    ("release", lambda iv: iv.release("K"), (10, 0)),
    ("reserve 4", lambda iv: iv.reserve("K", SEATTLE, CHAIR, Decimal(4)).unwrap(), (10, 4)),
    ("ship 4", lambda iv: iv.consume("K", Decimal(4)), (6, 0)),
    ("ship again", lambda iv: iv.consume("K", Decimal(4)), (6, 0)),
    ("release what is gone", lambda iv: iv.release("K"), (6, 0)),
    (
        "receive 5",
        lambda iv: iv.post_change(Change("R", SEATTLE, CHAIR, {"pos.inbound": Decimal(5)})).unwrap(),
        (11, 0),
    ),
    ("set 20", lambda iv: iv.set_on_hand([Change("S", SEATTLE, CHAIR, {"pos.inbound": Decimal(24)})], "pos"), (20, 0)),
)


@pytest.mark.parametrize("setup", ["as documented", "no reservation id again"])
@pytest.mark.parametrize("restarts", [False, True], ids=["same process", "new process"])
@pytest.mark.parametrize("kind", ["lost", "refuse"])
def test_a_life_is_the_same_whichever_answer_is_lost(kind: str, restarts: bool, setup: str, tmp_path: Path) -> None:
    smooth = Environment()
    smooth.put("Seattle", "CHAIR", 10)
    for _, step, _ in LIFE:
        step(smooth.iv)
    calls = smooth.twin.faults.calls
    assert calls == 10, "three for the tokens, seven writes"
    for position in range(calls):
        book = FileBook(tmp_path / f"{position}.db")
        live(Environment(**{**HARNESSES[setup], "book": book}), kind, restarts, position)
        book.close()


def live(env: Environment, kind: str, restarts: bool, position: int) -> None:
    env.put("Seattle", "CHAIR", 10)
    env.twin.faults.plan(Fault(kind, after=position))
    for name, step, levels in LIFE:
        until_done(partial(_step, step, env), env.restart if restarts else lambda: None)
        assert env.levels() == levels, f"{name}, call {position} cut"
    assert not any(each.times for each in env.twin.faults.planned), "the fault struck"
    reserved = [body["id"] for body in env.bodies("/onhand/reserve") if body["quantity"] > 0]
    assert set(reserved) == {"iom/K/1", "iom/K/2"}


def _step(step: Callable[[InventoryVisibility], object], env: Environment) -> None:
    step(env.iv)


def test_a_lost_reservation_that_is_released_is_given_back(env: Environment) -> None:
    """The optimizer releases before it asks again, and may not know that the service heard the first time."""
    env.put("Seattle", "CHAIR", 5)
    for kind in ("lost", "refuse"):
        env.twin.faults.plan(Fault(kind, path="/reserve"))
        with pytest.raises(Unavailable):
            env.iv.reserve(kind, SEATTLE, CHAIR, Decimal(3))
        env.iv.release(kind)
        assert env.levels() == (5, 0)


def test_keys_nobody_reserved_ask_nobody(env: Environment) -> None:
    env.iv.release("nobody")
    env.iv.consume("nobody", Decimal(1))
    assert env.twin.faults.calls == 0


def test_a_refusal_is_asked_again_under_a_new_id() -> None:
    """A service that remembers refusals by id would refuse for ever, whatever arrives meanwhile."""
    env = Environment(refusals_stick=True)
    env.put("Seattle", "CHAIR", 2)
    assert failed(env.iv.reserve("K", SEATTLE, CHAIR, Decimal(3)))
    env.put("Seattle", "CHAIR", 1)
    assert not failed(env.iv.reserve("K", SEATTLE, CHAIR, Decimal(3)))
    assert [each["id"] for each in env.bodies("/onhand/reserve")] == ["iom/K/1", "iom/K/2"]


def test_a_lost_refusal_is_a_refusal_and_the_key_can_ask_again() -> None:
    env = Environment(refusals_stick=True)
    env.put("Seattle", "CHAIR", 2)
    env.twin.faults.plan(Fault("lost", path="/reserve"))
    with pytest.raises(Unavailable):
        env.iv.reserve("K", SEATTLE, CHAIR, Decimal(3))
    env.put("Seattle", "CHAIR", 1)
    assert not failed(env.iv.reserve("K", SEATTLE, CHAIR, Decimal(3)))
    assert env.levels() == (3, 3)


def test_what_is_left_of_a_reservation_is_given_back(env: Environment) -> None:
    env.put("Seattle", "CHAIR", 10)
    env.iv.reserve("K", SEATTLE, CHAIR, Decimal(5))
    env.iv.consume("K", Decimal(2))
    assert env.levels() == (8, 0)
    assert env.iv.reserve("K", SEATTLE, CHAIR, Decimal(5)).unwrap() == "res-1", "a shipped key reserves no more"
    assert env.levels() == (8, 0)
    env.iv.reserve("L", SEATTLE, CHAIR, Decimal(1))
    env.iv.consume("L", Decimal(9))
    assert env.levels() == (7, 0), "never more than was reserved"
    with pytest.raises(ValueError, match="can't be consumed"):
        env.iv.consume("L", Decimal(0))


def test_stock_is_posted_before_its_reservation_is_given_back(env: Environment) -> None:
    """In the other order what is shipped could be promised in between."""
    env.put("Seattle", "CHAIR", 5)
    env.iv.reserve("K", SEATTLE, CHAIR, Decimal(5))
    env.twin.faults.plan(Fault("refuse", path="/unreserve"))
    with pytest.raises(Unavailable):
        env.iv.consume("K", Decimal(5))
    assert failed(env.iv.reserve("L", SEATTLE, CHAIR, Decimal(1)))
    assert [each.available for each in env.iv.available([CHAIR])] == [0], "never below zero"
    env.iv.release("K")
    assert env.levels() == (0, 5), "what is being shipped is not released"
    env.iv.consume("K", Decimal(5))
    assert env.levels() == (0, 0)


def test_where_fno_offsets_reservations_only_the_rest_is_given_back() -> None:
    """F&O's line carries the reservation id; our taking it back too would free what is not there."""
    env = Environment(settings={"shipped_as": {}})
    env.put("Seattle", "CHAIR", 10)
    number = env.iv.reserve("K", SEATTLE, CHAIR, Decimal(5)).unwrap()
    env.iv.consume("K", Decimal(3))
    assert env.levels() == (10, 3)
    assert env.twin.offset(number, 3) == 3
    assert env.levels() == (10, 0)
    assert env.bodies("/onhand") == []


def test_releasing_what_fno_has_offset_in_part_is_fine(env: Environment) -> None:
    """The service answers partialSuccess with the surplus."""
    env.put("Seattle", "CHAIR", 10)
    number = env.iv.reserve("K", SEATTLE, CHAIR, Decimal(5)).unwrap()
    env.twin.offset(number, 2)
    env.iv.release("K")
    assert env.levels() == (10, 0)


def test_a_repeated_reservation_without_its_id_is_visible() -> None:
    """Releasing by id needs the id: where a repetition doesn't tell it, configuration must say how to release."""
    env = Environment(replays_answer=False)
    env.put("Seattle", "CHAIR", 10)
    env.twin.faults.plan(Fault("lost", path="/reserve"))
    with pytest.raises(Unavailable):
        env.iv.reserve("K", SEATTLE, CHAIR, Decimal(5))
    with pytest.raises(Misunderstood, match=r"\$\.reservationId"):
        env.iv.reserve("K", SEATTLE, CHAIR, Decimal(5))


def test_threads_never_promise_the_same_unit(env: Environment) -> None:
    env.put("Seattle", "CHAIR", 10)
    kept: list[bool] = []

    def run(at: int) -> None:
        # Each key twice: a key reserves once.
        kept.extend(not failed(env.iv.reserve(f"K-{at}", SEATTLE, CHAIR, Decimal(1))) for _ in range(2))

    threads = [threading.Thread(target=run, args=(at,)) for at in range(16)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sum(kept) == 20
    assert env.levels() == (10, 10)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "release", "consume", "receive"]),
        st.sampled_from(["K-1", "K-2", "K-3"]),
        st.decimals(min_value="0.01", max_value=6, places=2),
        st.sampled_from(["", "", "lost", "refuse"]),
        st.integers(0, 1),
    ),
    max_size=25,
)


def do(env: Environment, what: str, key: str, quantity: Decimal, at: int, *, known: bool, fits: bool) -> None:
    if what == "reserve":
        assert failed(env.iv.reserve(key, SEATTLE, CHAIR, quantity)) != (known or fits)
    elif what == "release":
        env.iv.release(key)
    elif what == "consume":
        env.iv.consume(key, quantity)
    else:
        env.iv.post_change(Change(f"R-{at}", SEATTLE, CHAIR, {"pos.inbound": quantity})).unwrap()


@given(steps=STEPS, stock=st.integers(0, 10))
def test_stock_never_goes_below_zero(steps: Sequence[tuple[str, str, Decimal, str, int]], stock: int) -> None:
    """Whatever is asked for and lost: nothing is promised that isn't there, and everything agrees with a model."""
    env = Environment()
    env.put("Seattle", "CHAIR", stock)
    on_hand, held, gone = Decimal(stock), dict[str, Decimal](), set[str]()
    for at, (what, key, quantity, cut, after) in enumerate(steps):
        env.twin.faults.planned.clear()
        if cut:
            env.twin.faults.plan(Fault(cut, path="/onhand", after=after))

        fits = quantity <= on_hand - sum(held.values())
        until_done(partial(do, env, what, key, quantity, at, known=key in held or key in gone, fits=fits))
        if what == "reserve" and key not in gone and fits:
            held.setdefault(key, quantity)
        elif what == "release":
            held.pop(key, None)
        elif what == "consume" and key in held:
            on_hand -= min(quantity, held.pop(key))
            gone.add(key)
        elif what == "receive":
            on_hand += quantity
        assert env.levels() == (on_hand, sum(held.values()))
        assert env.twin.free(*PLACES["Seattle"], "CHAIR") >= 0


@given(amounts=st.lists(st.decimals(min_value="0.01", max_value=9, places=2), max_size=6))
def test_reserving_and_releasing_restores_everything(amounts: Sequence[Decimal]) -> None:
    env = Environment()
    env.put("Seattle", "CHAIR", 20)
    before = env.raw("POST", "/onhand/indexquery", INDEX_QUERY).json()[0]["quantities"]["iv"]["availabletoreserve"]
    for at, amount in enumerate(amounts):
        env.iv.reserve(f"K-{at}", SEATTLE, CHAIR, amount)
    for at in range(len(amounts)):
        env.iv.release(f"K-{at}")
    after = env.raw("POST", "/onhand/indexquery", INDEX_QUERY).json()[0]["quantities"]["iv"]
    assert (before, after["availabletoreserve"], after.get("softreservordered", 0)) == (20, 20, 0)


# --- asking ------------------------------------------------------------------------------------------------

INDEX_QUERY: dict[str, Any] = {
    "filters": {"organizationId": ["usmf"], "productId": ["CHAIR"], "siteId": ["1"], "locationId": ["11"]},
    "groupByValues": [],
    "returnNegative": True,
}


def stock_of(env: Environment, *products: ProductId) -> dict[tuple[str, str], Decimal]:
    return {(each.source, each.product): each.available for each in env.iv.available(products)}


class TestAvailable:
    def test_nothing_asked_for_is_nothing_asked(self, env: Environment) -> None:
        """An empty list of products would mean all of them."""
        env.put("Seattle", "CHAIR", 5)
        assert env.iv.available([]) == ()
        assert env.iv.atp([]) == ()
        assert env.twin.faults.calls == 0
        with pytest.raises(ValueError, match="every product"):
            wire.query_body("usmf", [], ["1"], ["11"], [])

    def test_variants_are_told_apart(self, env: Environment) -> None:
        env.put("Seattle", "SHIRT", 5, colorId="red", sizeId="S")
        env.put("Seattle", "SHIRT", 2, colorId="red", sizeId="M")
        env.put("Seattle", "SHIRT", 3, ColorId="blue")
        env.put("Reno", "SHIRT", 1, colorId="blue")
        env.put("Seattle", "CHAIR", 4)
        assert stock_of(env, RED, BLUE, CHAIR) == {
            ("Seattle", "SHIRT-RED"): 7,
            ("Seattle", "SHIRT-BLUE"): 3,
            ("Reno", "SHIRT-BLUE"): 1,
            ("Seattle", "CHAIR"): 4,
        }
        env.iv.reserve("K", SEATTLE, RED, Decimal(6)).unwrap()
        assert stock_of(env, RED, BLUE)["Seattle", "SHIRT-RED"] == 1
        assert failed(env.iv.reserve("L", SEATTLE, RED, Decimal(2)))
        env.iv.release("K")
        assert stock_of(env, RED)["Seattle", "SHIRT-RED"] == 7

    def test_places_that_are_no_source_of_ours_do_not_count(self, env: Environment) -> None:
        """An index query asks for every pair of site and location."""
        env.twin.put("usmf", "2", "11", "CHAIR", 9)
        env.twin.put("demf", "1", "11", "CHAIR", 9)
        env.put("Seattle", "CHAIR", 1)
        assert stock_of(env, CHAIR) == {("Seattle", "CHAIR"): 1}

    def test_negative_rows_are_asked_for(self, env: Environment) -> None:
        """Leaving them out would make the sum of a product's rows too large."""
        env.put("Seattle", "CHAIR", 5, colorId="red")
        env.put("Seattle", "CHAIR", -4, colorId="blue")
        assert stock_of(env, CHAIR) == {("Seattle", "CHAIR"): 1}
        env.put("Seattle", "CHAIR", -4, colorId="blue")
        assert stock_of(env, CHAIR) == {("Seattle", "CHAIR"): 0}
        assert all(body["returnNegative"] is True for body in env.bodies("/onhand/indexquery"))

    def test_no_query_breaks_the_limits(self) -> None:
        """At most 100 pairs of site and location, and 5,000 products, in one query; the twin refuses more."""
        sources = {f"S{at}": {"organization": "usmf", "site": f"{at % 40}", "location": f"L{at}"} for at in range(130)}
        env = Environment(settings={"sources": sources})
        for at in range(130):
            env.twin.put("usmf", f"{at % 40}", f"L{at}", "CHAIR", 1)
        products = [ProductId("CHAIR"), *(ProductId(f"P{at}") for at in range(6_000))]
        assert len(env.iv.available(products)) == 130
        for body in env.bodies("/onhand/indexquery"):
            assert len(body["filters"]["siteId"]) * len(body["filters"]["locationId"]) <= 100
            assert len(body["filters"]["productId"]) <= 5_000

    @given(
        places=st.lists(
            st.builds(wire.Place, st.just("usmf"), st.sampled_from("abcdef"), st.sampled_from("uvwxyz")), unique=True
        ),
        most=st.integers(1, 12),
    )
    def test_batches_keep_every_place_and_the_limit(self, places: list[wire.Place], most: int) -> None:
        batches = list(wire.place_batches(places, most))
        assert sorted(str(each) for batch in batches for each in batch) == sorted(map(str, places))
        for batch in batches:
            assert len({each.site for each in batch}) * len({each.location for each in batch}) <= most


class TestCasing:
    @pytest.fixture
    def env(self) -> Environment:
        return Environment(settings={"sources": {"Seattle": wire.Place(*PLACES["Seattle"])}})

    ROW: Mapping[str, Any] = {
        "productId": "CHAIR",
        "dimensions": {"SITEID": "1", "LocationId": "11"},
        "quantities": {"IV": {"AvailableToReserve": 20}, "pos": {"inbound": 0}},
    }

    def answer(self, env: Environment, *rows: Mapping[str, Any]) -> dict[tuple[str, str], Decimal]:
        env.twin.instead["/onhand/indexquery"] = TwinResponse.of(200, list(rows))
        return stock_of(env, CHAIR)

    def test_names_are_compared_without_case(self, env: Environment) -> None:
        assert self.answer(env, self.ROW) == {("Seattle", "CHAIR"): 20}
        red = {**self.ROW, "productId": "SHIRT", "dimensions": {"siteid": "1", "locationid": "11", "COLORID": "red"}}
        env.twin.instead["/onhand/indexquery"] = TwinResponse.of(200, [red])
        assert stock_of(env, RED) == {("Seattle", "SHIRT-RED"): 20}

    def test_the_twin_answers_in_another_case_than_it_was_asked(self, env: Environment) -> None:
        env.put("Seattle", "CHAIR", 5, colorId="red")
        (row,) = env.raw("POST", "/onhand/indexquery", {**INDEX_QUERY, "groupByValues": ["colorId"]}).json()
        assert row["dimensions"] == {"siteid": "1", "locationid": "11", "ColorId": "red"}
        assert row["quantities"]["iv"]["availabletoreserve"] == 5

    def test_an_absent_measure_is_zero(self, env: Environment) -> None:
        assert self.answer(env, {**self.ROW, "quantities": {}}) == {("Seattle", "CHAIR"): 0}

    def test_values_nobody_asked_for_are_visible(self, env: Environment) -> None:
        """Another spelling of a value would otherwise look like no stock."""
        for changed in ({"productId": "chair"}, {"dimensions": {"siteid": "01", "locationid": "11"}}):
            with pytest.raises(Misunderstood, match=r"\$\[0\]: nobody asked"):
                self.answer(env, {**self.ROW, **changed})

    @pytest.mark.parametrize(
        ("changed", "path"),
        [
            ({"productId": 5}, r"\$\[0\]\.productId"),
            ({"dimensions": None}, r"\$\[0\]\.dimensions"),
            ({"dimensions": {"siteid": "1", "SiteId": "2"}}, r"\$\[0\]\.dimensions\.SiteId"),
            ({"quantities": {"iv": {"availabletoreserve": "20"}}}, r"quantities\.iv\.availabletoreserve"),
            ({"quantities": {"iv": [1]}}, r"quantities\.iv"),
            ({"atpQuantities": {"soon": {}}}, r"atpQuantities"),
        ],
    )
    def test_what_cannot_be_read_names_its_path(self, env: Environment, changed: Mapping[str, Any], path: str) -> None:
        with pytest.raises(Misunderstood, match=path):
            self.answer(env, {**self.ROW, **changed})

    def test_an_envelope_is_not_understood(self, env: Environment) -> None:
        env.twin.instead["/onhand/indexquery"] = TwinResponse.of(200, {"value": [self.ROW]})
        with pytest.raises(Misunderstood, match="an array is needed"):
            env.iv.available([CHAIR])

    def test_the_offset_quantity_is_written_with_a_capital(self, env: Environment) -> None:
        env.put("Seattle", "CHAIR", 5)
        number = env.iv.reserve("K", SEATTLE, CHAIR, Decimal(2)).unwrap()
        body = wire.unreserve_body("u", "usmf", number, {"SITEID": "1", "locationid": "11"}, Decimal(1))
        small = {("offsetQty" if name == "OffsetQty" else name): each for name, each in body.items()}
        assert env.raw("POST", "/onhand/unreserve", json.loads(json.dumps(small, default=str))).status_code == 400
        assert env.raw("POST", "/onhand/unreserve", {**body, "OffsetQty": 1}).json()["processingStatus"] == "success"
        assert env.levels() == (5, 1)


# --- available to promise ----------------------------------------------------------------------------------

DEMAND, SUPPLY = "pos.outbound", "pos.inbound"
TABLE = (
    (date(2022, 2, 1), 20, ((1, DEMAND, 3), (3, SUPPLY, 10), (4, DEMAND, 15), (5, SUPPLY, 1), (6, SUPPLY, 3)),
     (12, 12, 12, 12, 13, 16, 16)),
    (date(2022, 2, 1), 20, ((1, DEMAND, 3),), (17,) * 7),
    (date(2022, 2, 1), 20, ((1, DEMAND, 3), (3, SUPPLY, 10)), (17, 17, 27, 27, 27, 27, 27)),
    (date(2022, 2, 4), 17, ((4, DEMAND, 15), (5, SUPPLY, 1), (6, SUPPLY, 3)), (2, 3, 6, 6, 6, 6, 6)),
    (date(2022, 2, 1), 10, ((2, DEMAND, 5), (6, SUPPLY, 7)), (5, 5, 5, 5, 5, 12, 12)),
    (date(2022, 2, 1), 0, ((3, DEMAND, 4),), (-4,) * 7),
)  # fmt: skip
"""Today, on hand, plans by day of February 2022, and what may be promised: the documented examples."""


def promises(env: Environment, first: date | None = None, last: date | None = None) -> list[Decimal]:
    found = [each for each in env.iv.atp([CHAIR], first, last) if each.source == SEATTLE]
    assert all((b.day - a.day).days == 1 for a, b in pairwise(found))
    return [each.quantity for each in found]


def day_plan(day: int, measure: str, quantity: int, name: str = "") -> Plan:
    id_ = name or f"plan-{day}-{measure}"
    return Plan(id_, SEATTLE, CHAIR, date(2022, 2, day), {measure: Decimal(quantity)})


class TestAtp:
    @pytest.mark.parametrize(("today", "on_hand", "plans", "atp"), TABLE)
    def test_the_documented_tables(
        self,
        env: Environment,
        today: date,
        on_hand: int,
        plans: Sequence[tuple[int, str, int]],
        atp: Sequence[int],
    ) -> None:
        env.clock.jump(datetime.combine(today, START.timetz()))
        env.put("Seattle", "CHAIR", on_hand)
        for day, measure, quantity in plans:
            assert not failed(env.iv.schedule(day_plan(day, measure, quantity)))
        assert promises(env) == list(atp)

    def test_the_whole_documented_story(self, env: Environment) -> None:
        """Plans made on 2/1, the first one shipped, the supply of 2/3 late: 2/4 must not count on it."""
        env.put("Seattle", "CHAIR", 20)
        plans = [day_plan(*each) for each in TABLE[0][2]]
        assert env.iv.schedule_all(plans) == ()
        assert promises(env) == [12, 12, 12, 12, 13, 16, 16]
        assert not failed(env.iv.commit(plans[0]))
        assert env.levels() == (17, 0)
        assert promises(env) == [12, 12, 12, 12, 13, 16, 16]
        env.clock.advance(86_400)
        assert promises(env) == [12, 12, 12, 13, 16, 16, 16]
        env.clock.advance(2 * 86_400)
        assert promises(env) == [2, 3, 6, 6, 6, 6, 6]
        assert not failed(env.iv.commit(plans[1])), "it arrives after all; there is no plan left to take back"
        assert promises(env) == [12, 13, 16, 16, 16, 16, 16]

    def test_committing_counts_once_whichever_answer_is_lost(self) -> None:
        for position in range(2):
            env = Environment(schedule_days=7)
            env.put("Seattle", "CHAIR", 20)
            env.iv.schedule(day_plan(3, SUPPLY, 10))
            env.twin.faults.plan(Fault("lost", after=position))
            until_done(partial(env.iv.commit, day_plan(3, SUPPLY, 10)))
            assert promises(env) == [30] * 7

    def test_days_are_only_told_apart(self, env: Environment) -> None:
        env.put("Seattle", "CHAIR", 20)
        env.iv.schedule(day_plan(4, DEMAND, 15))
        assert promises(env, date(2022, 2, 2), date(2022, 2, 3)) == [5, 5]

    def test_reservations_lower_what_may_be_promised(self, env: Environment) -> None:
        env.put("Seattle", "CHAIR", 20)
        env.iv.reserve("K", SEATTLE, CHAIR, Decimal(8))
        assert promises(env) == [12] * 7

    def test_only_days_of_the_period_are_planned(self, env: Environment) -> None:
        for day in (8, 9):
            refused = env.iv.schedule(day_plan(day, SUPPLY, 1)).failure()
            assert (refused.code, refused.where) == ("outside-period", "$.day")
        yesterday = Plan("p", SEATTLE, CHAIR, date(2022, 1, 31), {SUPPLY: Decimal(1)})
        assert env.iv.schedule(yesterday).failure().code == "outside-period"
        assert not failed(env.iv.schedule(day_plan(7, SUPPLY, 1)))
        assert env.bodies("/onhand/changeschedule")[0]["quantitiesByDate"] == {"2022-02-07": {"pos": {"inbound": 1}}}
        body = {**env.bodies("/onhand/changeschedule")[0], "id": "x", "quantitiesByDate": {"2022-02-08": {}}}
        assert env.raw("POST", "/onhand/changeschedule", body).status_code == 400

    def test_variants_need_an_index_set_of_their_own(self) -> None:
        env = Environment(settings={"atp_group_by": ["ColorId", "SizeId"]}, schedule_days=7)
        env.put("Seattle", "SHIRT", 5, colorId="red", sizeId="S")
        env.put("Seattle", "SHIRT", 2, colorId="blue")
        assert {each.quantity for each in env.iv.atp([RED])} == {5}
        with pytest.raises(Misconfigured, match="atp_group_by"):
            Environment().iv.atp([RED])

    @given(
        plans=st.lists(st.tuples(st.integers(1, 7), st.sampled_from([DEMAND, SUPPLY]), st.integers(1, 9)), max_size=8),
        on_hand=st.integers(0, 20),
    )
    def test_a_promise_never_breaks_a_later_one(self, plans: Sequence[tuple[int, str, int]], on_hand: int) -> None:
        """ATP never falls from one day to the next, and is never more than what is projected for its day."""
        env = Environment(schedule_days=7)
        env.put("Seattle", "CHAIR", on_hand)
        env.iv.schedule_all([day_plan(*each, name=f"p{at}") for at, each in enumerate(plans)])
        atp = promises(env)
        assert atp == sorted(atp)
        moved = [(day, quantity if measure == SUPPLY else -quantity) for day, measure, quantity in plans]
        assert all(atp[day - 1] <= on_hand + sum(q for d, q in moved if d <= day) for day in range(1, 8))


# --- changes -----------------------------------------------------------------------------------------------


class TestChanges:
    def test_an_id_counts_once(self, env: Environment) -> None:
        change = Change("C-1", SEATTLE, CHAIR, {"pos.inbound": Decimal("2.5")})
        for _ in range(2):
            assert not failed(env.iv.post_change(change))
        assert env.levels() == (Decimal("2.5"), 0)

    def test_bulk_is_cut_at_512_records(self, env: Environment) -> None:
        changes = [Change(f"C-{at}", SEATTLE, CHAIR, {"pos.inbound": Decimal(1)}) for at in range(1_100)]
        env.twin.faults.plan(Fault("lost", path="/onhand/bulk", after=1))
        until_done(lambda: env.iv.post_changes(changes))
        assert env.levels() == (1_100, 0)
        assert max(map(len, env.bodies("/onhand/bulk"))) == 512
        record = env.bodies("/onhand/bulk")[0][0]
        assert env.raw("POST", "/onhand/bulk", [record] * 513).status_code == 400

    def test_those_refused_are_named(self, env: Environment) -> None:
        good = Change("good", SEATTLE, CHAIR, {"pos.inbound": Decimal(1)})
        lost = Change("lost", SourceId("Mars"), CHAIR, {"pos.inbound": Decimal(1)})
        theirs = Change("theirs", SEATTLE, CHAIR, {"FNO.physicalInvent": Decimal(1)})
        refused = env.iv.post_changes([lost, good, theirs])
        assert [(name, each.code) for name, each in refused] == [
            ("lost", "unknown-source"),
            ("theirs", "read-only-measure"),
        ]
        assert env.levels() == (1, 0)
        env.twin.instead["/onhand/bulk"] = TwinResponse.of(
            200, [{"processingStatus": "error", "message": "no such product", "statusCode": 400}]
        )
        ((name, why),) = env.iv.post_changes([good])
        assert (name, why.what, why.where) == ("good", "no such product", "$[0]")

    def test_an_answer_too_short_is_not_understood(self, env: Environment) -> None:
        env.twin.instead["/onhand/bulk"] = TwinResponse.of(200, [])
        with pytest.raises(Misunderstood, match="1 records were sent"):
            env.iv.post_changes([Change("C", SEATTLE, CHAIR, {"pos.inbound": Decimal(1)})])

    def test_setting_is_absolute_and_dated(self, env: Environment) -> None:
        env.put("Seattle", "CHAIR", 7)
        assert env.iv.set_on_hand([Change("S", SEATTLE, CHAIR, {"pos.inbound": Decimal(4)})], "pos") == ()
        assert env.levels() == (4, 0)
        assert env.bodies("/setonhand/pos/bulk")[0][0]["modifiedDateTimeUTC"] == "2022-02-01T09:30:00Z"

    def test_nothing_changes_the_measures_of_fno(self, env: Environment) -> None:
        body = {**CHANGE, "quantities": {"fno": {"physicalinvent": 5}}}
        assert env.raw("POST", "/onhand", body).status_code == 400
        assert env.iv.post_change(Change("C", SEATTLE, CHAIR, {"fno.onorder": Decimal(1)})).failure().where == (
            "$.quantities"
        )


CHANGE: dict[str, Any] = {
    "id": "c-1",
    "organizationId": "usmf",
    "productId": "CHAIR",
    "dimensions": {"siteId": "1", "locationId": "11"},
    "quantities": {"pos": {"inbound": 5}},
}


# --- allocation --------------------------------------------------------------------------------------------


class TestAllocation:
    EU: Mapping[str, str] = {**GROUPS, "region": "EU"}

    def held(self, env: Environment) -> dict[str, Decimal]:
        return {each.groups["region"]: each.allocated for each in env.iv.allocations(SEATTLE, CHAIR)}

    def test_the_documented_story(self, env: Environment) -> None:
        """Ten bikes for one group, two moved to another, three sold out of the pool."""
        env.put("Seattle", "CHAIR", 12)
        assert not failed(env.iv.allocate("a", SEATTLE, CHAIR, GROUPS, Decimal(10)))
        assert not failed(env.iv.reallocate("r", SEATTLE, CHAIR, GROUPS, self.EU, Decimal(2)))
        assert self.held(env) == {"US": 8, "EU": 2}
        assert not failed(env.iv.consume_allocation("c", SEATTLE, CHAIR, GROUPS, Decimal(3), {"pos.inbound": -1}))
        assert self.held(env) == {"US": 5, "EU": 2}
        assert env.twin.allocated(*PLACES["Seattle"], "CHAIR") == 7
        assert env.levels() == (9, 0)
        assert not failed(env.iv.unallocate("u", SEATTLE, CHAIR, GROUPS, Decimal(5)))
        assert stock_of(env, CHAIR) == {("Seattle", "CHAIR"): 7}

    def test_others_cannot_take_what_is_set_aside(self, env: Environment) -> None:
        env.put("Seattle", "CHAIR", 10)
        env.iv.allocate("a", SEATTLE, CHAIR, GROUPS, Decimal(8))
        assert stock_of(env, CHAIR) == {("Seattle", "CHAIR"): 2}
        assert failed(env.iv.reserve("K", SEATTLE, CHAIR, Decimal(3)))
        refused = env.iv.allocate("b", SEATTLE, CHAIR, self.EU, Decimal(3)).failure()
        assert refused.what == "available to allocate is 2, not 3"

    def test_consuming_as_a_soft_reservation(self, env: Environment) -> None:
        env.put("Seattle", "CHAIR", 10)
        env.iv.allocate("a", SEATTLE, CHAIR, GROUPS, Decimal(8))
        env.iv.consume_allocation("c", SEATTLE, CHAIR, GROUPS, Decimal(3), {"iv.softreserved": 1}).unwrap()
        assert env.levels() == (10, 3)
        assert stock_of(env, CHAIR) == {("Seattle", "CHAIR"): 2}

    def test_refusals_change_nothing(self, env: Environment) -> None:
        env.put("Seattle", "CHAIR", 10)
        env.iv.allocate("a", SEATTLE, CHAIR, GROUPS, Decimal(4))
        many = {f"g{at}": "x" for at in range(9)}
        for name, answer in (
            ("more than there is", env.iv.unallocate("1", SEATTLE, CHAIR, GROUPS, Decimal(5))),
            ("more than there is", env.iv.reallocate("2", SEATTLE, CHAIR, GROUPS, self.EU, Decimal(5))),
            ("nothing", env.iv.allocate("3", SEATTLE, CHAIR, GROUPS, Decimal(0))),
            ("no groups", env.iv.allocate("4", SEATTLE, CHAIR, {}, Decimal(1))),
            ("nine groups", env.iv.allocate("5", SEATTLE, CHAIR, many, Decimal(1))),
            ("F&O's", env.iv.consume_allocation("6", SEATTLE, CHAIR, GROUPS, Decimal(1), {"fno.arrived": -1})),
            ("nowhere", env.iv.allocate("7", SourceId("Mars"), CHAIR, GROUPS, Decimal(1))),
        ):
            assert failed(answer), name
        assert self.held(env) == {"US": 4}
        with pytest.raises(Misconfigured, match="hierarchy"):
            env.iv.allocate("8", SEATTLE, CHAIR, {"region": "US"}, Decimal(1))

    def test_a_query_is_for_exactly_one_level_and_maybe_one_group(self, env: Environment) -> None:
        env.put("Seattle", "SHIRT", 10, colorId="red")
        env.iv.allocate("a", SEATTLE, RED, GROUPS, Decimal(4))
        assert env.iv.allocations(SEATTLE, ProductId("SHIRT")) == ()
        (found,) = env.iv.allocations(SEATTLE, RED, GROUPS)
        assert found.groups == GROUPS
        assert found.allocated == 4
        assert env.iv.allocations(SEATTLE, RED, self.EU) == ()
        with pytest.raises(Misconfigured, match="Mars"):
            env.iv.allocations(SourceId("Mars"), RED)

    @given(
        steps=st.lists(
            st.tuples(
                st.sampled_from(["allocate", "unallocate", "consume", "reallocate", "reserve"]), st.integers(1, 6)
            ),
            max_size=12,
        )
    )
    def test_no_more_is_set_aside_than_there_is(self, steps: Sequence[tuple[str, int]]) -> None:
        env = Environment()
        env.put("Seattle", "CHAIR", 10)
        iv = env.iv
        for at, (what, quantity) in enumerate(steps):
            name, amount = f"{at}", Decimal(quantity)
            if what == "allocate":
                iv.allocate(name, SEATTLE, CHAIR, GROUPS, amount)
            elif what == "unallocate":
                iv.unallocate(name, SEATTLE, CHAIR, GROUPS, amount)
            elif what == "consume":
                iv.consume_allocation(name, SEATTLE, CHAIR, self.EU, amount, {"pos.inbound": -1})
            elif what == "reallocate":
                iv.reallocate(name, SEATTLE, CHAIR, GROUPS, self.EU, amount)
            else:
                iv.reserve(name, SEATTLE, CHAIR, amount)
            held, total = self.held(env), env.twin.allocated(*PLACES["Seattle"], "CHAIR")
            on_hand, reserved = env.levels()
            assert total == sum(held.values())
            assert total + reserved <= on_hand
            assert all(each >= 0 for each in held.values())


# --- tokens ------------------------------------------------------------------------------------------------


def tokens(env: Environment) -> list[tuple[str, int]]:
    return [(path, status) for _, path, status in env.twin.faults.log if path.endswith("token")]


FRESH = [(ENTRA, 200), ("/token", 307), (SECURITY, 200)]


class TestTokens:
    def test_two_steps_and_a_redirect_once_for_many_calls(self, env: Environment) -> None:
        env.iv.available([CHAIR])
        env.iv.available([CHAIR])
        assert tokens(env) == FRESH

    def test_the_service_token_is_renewed_before_it_ends(self) -> None:
        env = Environment(service_lifetime=600, entra_lifetime=3599)
        env.iv.available([CHAIR])
        env.clock.advance(481)
        env.iv.available([CHAIR])
        assert tokens(env) == [*FRESH, ("/token", 307), (SECURITY, 200)]
        assert all(status == 200 for _, path, status in env.twin.faults.log if path.startswith(ROOT))

    def test_both_are_renewed_when_both_end(self, env: Environment) -> None:
        env.iv.available([CHAIR])
        env.clock.advance(3_500)
        env.iv.available([CHAIR])
        assert tokens(env) == [*FRESH, *FRESH]

    def test_a_service_token_that_ends_early_is_replaced(self, env: Environment) -> None:
        env.iv.available([CHAIR])
        env.twin.expire("service")
        env.iv.available([CHAIR])
        assert tokens(env) == [*FRESH, ("/token", 307), (SECURITY, 200)]

    def test_an_entra_token_that_ends_early_is_replaced_too(self, env: Environment) -> None:
        env.iv.available([CHAIR])
        env.twin.expire("service")
        env.twin.expire("entra")
        env.iv.available([CHAIR])
        assert tokens(env) == [*FRESH, ("/token", 307), (SECURITY, 401), *FRESH]

    def test_a_redirect_on_the_same_host_will_do(self) -> None:
        env = Environment(gateway="")
        env.iv.available([CHAIR])
        assert tokens(env) == FRESH

    @pytest.mark.parametrize(
        "gateway", ["https://evil.test", "http://gw.us-il101.gateway.powerapps.com", "https://evilpowerapps.com"]
    )
    def test_the_token_is_never_handed_to_a_stranger(self, gateway: str) -> None:
        env = Environment(gateway=gateway)
        with pytest.raises(Misunderstood, match="stranger"):
            env.iv.available([CHAIR])
        assert tokens(env) == FRESH[:2]

    def test_only_a_redirect_that_keeps_the_body_is_followed(self, env: Environment) -> None:
        env.twin.faults.plan(Fault("status", path="/token", after=1, status=302, headers={"location": "/elsewhere"}))
        with pytest.raises(Misunderstood, match="302"):
            env.iv.available([CHAIR])

    def test_a_redirect_without_end_is_left(self, env: Environment) -> None:
        again = {"location": "https://gw.us-il101.gateway.powerapps.com/token"}
        env.twin.faults.plan(Fault("status", path="/token", after=1, times=99, status=307, headers=again))
        with pytest.raises(Misunderstood, match="without end"):
            env.iv.available([CHAIR])

    @pytest.mark.parametrize("path", [ENTRA, SECURITY, "/onhand"])
    def test_throttling_and_outages_are_faults_that_pass(self, env: Environment, path: str) -> None:
        for status, headers in ((429, {"retry-after": "7"}), (503, {})):
            env.twin.faults.plan(Fault("status", path=path, status=status, headers=headers))
            with pytest.raises(Unavailable):
                env.iv.available([CHAIR])
            env.clock.advance(8)
        assert env.iv.available([CHAIR]) == ()

    def test_throttling_says_how_long(self, env: Environment) -> None:
        for path in ("/securityservice", "/onhand"):
            env.twin.faults.plan(Fault("status", path=path, status=429, headers={"retry-after": "7"}))
            with pytest.raises(Unavailable) as told:
                env.iv.available([CHAIR])
            assert told.value.retry_after == 7
        calls = env.twin.faults.calls
        with pytest.raises(Unavailable):
            env.iv.available([CHAIR])
        assert env.twin.faults.calls == calls, "nobody is asked before the pause is over"

    @pytest.mark.parametrize(
        "wrong", [{"client_secret": "hunter2"}, {"environment": "another"}, {"client_id": "nobody"}]
    )
    def test_wrong_credentials_are_ours_to_mend_and_not_told(self, wrong: Mapping[str, str]) -> None:
        env = Environment(settings=wrong)
        with pytest.raises(Misconfigured) as told:
            env.iv.available([CHAIR])
        assert "hunter2" not in str(told.value)
        assert "secret" not in repr(env.iv.config) + repr(env.iv._http.auth)

    @pytest.mark.parametrize(
        "body", [b"{", b"[]", b'{"access_token": "t0k3n"}', b'{"access_token": "t0k3n", "expires_in": 0}']
    )
    def test_an_answer_without_a_token_is_not_understood(self, env: Environment, body: bytes) -> None:
        env.twin.faults.plan(Fault("status", path=SECURITY, status=200, body=body))
        with pytest.raises(Misunderstood) as told:
            env.iv.available([CHAIR])
        assert "t0k3n" not in str(told.value)

    def test_the_twin_wants_what_the_service_wants(self, env: Environment) -> None:
        client, form = env.client, {"client_id": "iom", "client_secret": "secret", "grant_type": "client_credentials"}
        assert client.post(f"https://login.test{ENTRA}", data=form).json()["error"] == "invalid_scope"
        answer = client.post(f"https://login.test{ENTRA}", data={**form, "scope": ENTRA_SCOPE}).json()
        assert answer["expires_in"] == "3599", "text, as in the documentation"
        assert client.get(f"https://login.test{ENTRA}").status_code == 400
        assert client.get("https://security.test/token").status_code == 405
        assert client.post(f"https://security.test{SECURITY}").status_code == 400, "the header is missing"
        head = {"Api-Version": "1.0"}
        assert client.post(f"https://security.test{SECURITY}", headers=head).status_code == 400, "the body was dropped"
        assert env.raw("POST", "/onhand", CHANGE, headers={"Api-Version": "2"}).status_code == 400
        assert env.raw("POST", "/onhand", CHANGE, headers={"Authorization": "Bearer entra.1"}).status_code == 401
        assert env.raw("POST", "/onhand", CHANGE, headers={"Authorization": ""}).status_code == 401


# --- refusals and faults -----------------------------------------------------------------------------------


class TestAnswers:
    @pytest.mark.parametrize("status", [200, 400])
    def test_the_processing_status_decides_not_that_of_http(self, status: int) -> None:
        env = Environment(refused_status=status)
        refused = env.iv.reserve("K", SEATTLE, CHAIR, Decimal(1)).failure()
        assert (refused.code, refused.who) == ("refused-by-service", "inventory-visibility")
        assert refused.what == "available to reserve is 0, not 1"
        assert env.twin.reservations() == []

    @pytest.mark.parametrize(
        ("status", "body", "fault"),
        [
            (200, {"processingStatus": "error", "statusCode": 503}, Unavailable),
            (200, {"processingStatus": "error", "statusCode": 429}, Unavailable),
            (200, {"processingStatus": "error", "statusCode": 403}, Misconfigured),
            (200, {}, Misunderstood),
            (200, {"processingStatus": "success"}, Misunderstood),
            (200, {"processingStatus": 1}, Misunderstood),
            (200, {"processingStatus": "success", "statusCode": "200"}, Misunderstood),
            (400, {"message": "modifier is not configured"}, Misconfigured),
            (404, {"title": "Not Found"}, Misconfigured),
            (403, {}, Misconfigured),
            (500, {}, Unavailable),
        ],
    )
    def test_what_is_no_decision_is_a_fault(
        self, env: Environment, status: int, body: Mapping[str, Any], fault: type[Broken]
    ) -> None:
        env.twin.instead["/onhand/reserve"] = TwinResponse.of(status, body)
        with pytest.raises(fault):
            env.iv.reserve("K", SEATTLE, CHAIR, Decimal(1))

    def test_an_error_page_says_no_more_than_its_status(self, env: Environment) -> None:
        env.twin.instead["/onhand/indexquery"] = TwinResponse(404, {"content-type": "text/html"}, b"<html>")
        with pytest.raises(Misconfigured, match="404"):
            env.iv.available([CHAIR])
        env.twin.instead["/onhand/indexquery"] = TwinResponse(200, {"content-type": "text/html"}, b"<html>")
        with pytest.raises(Misunderstood, match="not JSON"):
            env.iv.available([CHAIR])

    def test_a_part_of_a_reservation_goes_back(self, env: Environment) -> None:
        env.put("Seattle", "CHAIR", 5)
        env.iv.reserve("other", SEATTLE, CHAIR, Decimal(2))
        part = {"processingStatus": "partialSuccess", "reservationId": "res-1", "message": "only 2"}
        env.twin.instead["/onhand/reserve"] = TwinResponse.of(200, part)
        assert env.iv.reserve("K", SEATTLE, CHAIR, Decimal(3)).failure().what == "only 2"
        assert env.levels() == (5, 0)
        env.twin.instead["/onhand/reserve"] = TwinResponse.of(200, {**part, "reservationId": ""})
        with pytest.raises(Misunderstood, match="nobody knows how much"):
            env.iv.reserve("L", SEATTLE, CHAIR, Decimal(3))

    def test_what_makes_no_sense_is_refused_unasked(self, env: Environment) -> None:
        assert env.iv.reserve("K", SourceId("Mars"), CHAIR, Decimal(1)).failure().where == "$.source"
        assert env.iv.reserve("K", SEATTLE, CHAIR, Decimal(0)).failure().where == "$.quantity"
        assert env.twin.faults.calls == 0

    def test_a_release_the_service_refuses_is_visible_and_stays_to_do(self, env: Environment) -> None:
        env.put("Seattle", "CHAIR", 5)
        env.iv.reserve("K", SEATTLE, CHAIR, Decimal(2))
        error = {"processingStatus": "error", "message": "dimensions differ", "statusCode": 400}
        env.twin.instead["/onhand/unreserve"] = TwinResponse.of(200, error)
        with pytest.raises(Misconfigured, match="dimensions differ"):
            env.iv.release("K")
        env.twin.instead.clear()
        env.iv.release("K")
        assert env.levels() == (5, 0)


class TestSettings:
    @pytest.mark.parametrize(
        ("changed", "told"),
        [
            ({"colour": "x"}, r"\$\.colour"),
            ({"environment": ""}, r"\$\.environment"),
            ({"sources": {}}, r"\$\.sources"),
            ({"sources": {"A": {"organization": "usmf"}}}, "site"),
            ({"sources": ["A"]}, r"\$\.sources"),
            ({"schedule_days": 181}, "schedule_days"),
            ({"schedule_days": True}, r"\$\.schedule_days"),
            ({"shipped_as": {"fno.physicalinvent": -1}}, "F&O"),
            ({"shipped_as": {"pos.outbound": 2}}, "shipped_as"),
            ({"available": "availabletoreserve"}, "source.measure"),
            ({"release_with": "luck"}, "release_with"),
            ({"release_with": BY_QUANTITY, "shipped_as": {}}, "no more than is left"),
            ({"token_url": ""}, "tenant"),
            ({"base_url": "http://iv.contoso.com"}, "https"),
            ({"products": {"A": {"product": "P"}, "B": {"product": "P"}}}, "two of the products"),
        ],
    )
    def test_what_is_wrong_is_named(self, changed: Mapping[str, object], told: str) -> None:
        with pytest.raises(Misconfigured, match=told):
            Environment(settings=changed)

    def test_two_sources_in_one_place_would_promise_twice(self) -> None:
        place = {"organization": "usmf", "site": "1", "location": "11"}
        with pytest.raises(Misconfigured, match="two of the sources"):
            Environment(settings={"sources": {"A": place, "B": place}})

    def test_the_tenant_gives_the_token_address(self) -> None:
        config = InventoryVisibilityConfig(
            base_url="https://iv.test",
            environment="e",
            client_id="c",
            client_secret="s",
            tenant="contoso",
            sources={"A": wire.Place("usmf", "1", "11")},
        )
        shown = repr(config.auth(httpx.Client(), lambda: START))
        assert "https://login.microsoftonline.com/contoso/oauth2/v2.0/token" in shown
        assert config.release_with == BY_ID


# --- the book ----------------------------------------------------------------------------------------------


def entry(**changes: Any) -> Entry:
    values = {"key": "K", "attempt": 1, "state": State.HELD, "organization": "usmf", "product": "CHAIR"}
    return Entry(**{**values, "dimensions": {"siteId": "1"}, "quantity": Decimal("2.50"), **changes})


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_book_keeps_what_was_written_and_the_faster_writer_wins(kind: str, tmp_path: Path) -> None:
    book: Book = FileBook(tmp_path / "deep" / "book.db") if kind == "file" else MemoryBook()
    assert book.get("K") is None
    first = book.put(entry(reservation="res-1", consumed=Decimal("0.5")))
    assert book.get("K") == first
    assert first.version == 1
    book.put(first)
    for stale in (first, entry()):
        with pytest.raises(Unavailable, match="elsewhere"):
            book.put(stale)
    if isinstance(book, FileBook):
        book.close()
        again = FileBook(tmp_path / "deep" / "book.db")
        found = again.get("K")
        assert found is not None
        assert (found.version, found.quantity, found.state) == (2, Decimal("2.50"), State.HELD)
        again.close()


def test_a_configured_file_remembers_reservations(tmp_path: Path) -> None:
    env = Environment(settings={"book_path": str(tmp_path / "book.db")})
    env.put("Seattle", "CHAIR", 5)
    for iv in (connect(env.settings, client=env.client, clock=env.clock) for _ in range(2)):
        iv.reserve("K", SEATTLE, CHAIR, Decimal(2)).unwrap()
        assert isinstance(iv._book, FileBook)
        iv._book.close()
    assert len(env.bodies("/onhand/reserve")) == 1


# --- the twin ----------------------------------------------------------------------------------------------


class TestTwin:
    def test_its_state_survives_a_killed_process(self, tmp_path: Path) -> None:
        for amount in (5, 3):
            env = Environment(path=tmp_path / "twin.db")
            env.put("Seattle", "CHAIR", amount)
            env.iv.reserve("K", SEATTLE, CHAIR, Decimal(2)).unwrap()
            env.twin.close()
        env = Environment(path=tmp_path / "twin.db")
        assert env.levels() == (8, 2), "the reservation's id was remembered too"
        env.twin.close()

    def test_it_serves_over_http(self) -> None:
        twin = InventoryVisibilityTwin()
        serving = serve(twin)
        try:
            local = {"base_url": serving.url, "token_url": serving.url + ENTRA, "security_url": serving.url + "/token"}
            iv = connect({**Environment().settings, **local})
            assert not failed(iv.post_change(Change("C", SEATTLE, CHAIR, {"pos.inbound": Decimal(5)})))
            iv.reserve("K", SEATTLE, CHAIR, Decimal(5)).unwrap()
            iv.release("K")
            assert iv.available([CHAIR])[0].available == 5
            iv._http.close()
        finally:
            serving.close()

    def test_the_query_in_the_address_answers_the_same(self, env: Environment) -> None:
        env.put("Seattle", "CHAIR", 5, colorId="red")
        env.put("Seattle", "CHAIR", -2, colorId="blue")
        address = "/onhand?organizationId=usmf&productId=CHAIR&SiteId=1&locationId=11,12&groupBy=colorId,sizeId"
        every = env.raw("GET", f"{address}&returnNegative=true").json()
        assert [row["dimensions"].get("ColorId") for row in every] == ["blue", "red"]
        assert len(env.raw("GET", f"{address}&returnNegative=false").json()) == 1
        assert "atpQuantities" in env.raw("GET", f"{address}&QueryATP=true").json()[0]
        assert len(env.raw("GET", f"{address}&colorId=red").json()) == 1

    @pytest.mark.parametrize(
        ("path", "changed"),
        [
            ("/onhand", {"id": ""}),
            ("/onhand", {"dimensions": {"siteId": "1"}}),
            ("/onhand", {"dimensions": {"siteId": "1", "locationId": "11", "moonId": "x"}}),
            ("/onhand", {"dimensions": {"siteId": "1", "locationId": "11", "posMachineId": "x"}}),
            ("/onhand", {"quantities": {"pos": {"inbound": "5"}}}),
            ("/onhand", {"quantities": {"iv": {"onhand": 5}}}),
            ("/onhand", {"quantities": {}}),
            ("/onhand/reserve", {"modifier": "wish", "quantity": 1}),
            ("/onhand/reserve", {"modifier": "softReservOrdered", "quantity": -1}),
            ("/onhand/reserve", {"quantities": {"iv": {"softreserved": 1}, "pos": {"inbound": 1}}}),
            ("/onhand/changeschedule", {"quantitiesByDate": {"2/3/2022": {"pos": {"inbound": 5}}}}),
            ("/onhand/indexquery", {**INDEX_QUERY, "filters": {**INDEX_QUERY["filters"], "siteId": []}}),
            ("/onhand/indexquery", {"filters": {**INDEX_QUERY["filters"], "organizationId": ["usmf", "demf"]}}),
            ("/onhand/indexquery", {"filters": {**INDEX_QUERY["filters"], "siteId": list("abcdefghijk") * 10}}),
            ("/onhand/indexquery", {"filters": {**INDEX_QUERY["filters"], "productId": ["P"] * 5_001}}),
            ("/onhand/indexquery", {**INDEX_QUERY, "QueryATP": True, "groupByValues": ["ColorId"]}),
            ("/onhand/exactquery", {"filters": {**INDEX_QUERY["filters"], "dimensions": ["siteId"], "values": []}}),
        ],
    )
    def test_it_refuses_what_the_service_refuses(self, env: Environment, path: str, changed: Mapping[str, Any]) -> None:
        body = {name: each for name, each in CHANGE.items() if path == "/onhand" or name != "quantities"}
        answer = env.raw("POST", path, {**body, **changed})
        assert (answer.status_code, answer.json()["statusCode"]) == (400, 400)
        assert env.levels() == (0, 0)

    def test_reservations_follow_the_hierarchy_and_their_dimensions(self, env: Environment) -> None:
        env.put("Seattle", "CHAIR", 5, colorId="red", sizeId="S")
        place = {"siteId": "1", "locationId": "11"}
        body = {
            "id": "r",
            "organizationId": "usmf",
            "productId": "CHAIR",
            "quantities": {"iv": {"softReservOrdered": 2}},
        }
        assert env.raw("POST", "/onhand/reserve", {**body, "dimensions": {**place, "sizeId": "S"}}).status_code == 400
        red = {**place, "colorId": "red"}
        number = env.raw("POST", "/onhand/reserve", {**body, "dimensions": red}).json()["reservationId"]
        back = {"id": "u", "organizationId": "usmf", "reservationId": number, "dimensions": place, "OffsetQty": 2}
        assert env.raw("POST", "/onhand/unreserve", back).json()["processingStatus"] == "error"
        other = {**back, "organizationId": "demf", "dimensions": red}
        assert env.raw("POST", "/onhand/unreserve", other).json()["processingStatus"] == "error"
        assert env.levels() == (5, 2)
        surplus = env.raw("POST", "/onhand/unreserve", {**back, "dimensions": red, "OffsetQty": 12}).json()
        assert (surplus["processingStatus"], surplus["totalInvalidOffsetQtyByReservId"]) == ("partialSuccess", 10)

    def test_other_paths_methods_and_bodies(self, env: Environment) -> None:
        assert env.raw("POST", "/onhand/reserve/resyncjob", {}).status_code == 404
        assert env.raw("DELETE", "/onhand").status_code == 405
        assert env.raw("POST", "/onhand", content=b"{", headers={"Content-Type": "application/json"}).status_code == 400
        assert env.raw("POST", "/onhand", content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415
        assert env.raw("POST", "/onhand", []).status_code == 400
        with pytest.raises(ValueError, match="180 days"):
            InventoryVisibilityTwin(schedule_days=181)


# --- the documented samples --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def samples() -> dict[str, Any]:
    if not SAMPLES.exists():
        pytest.skip("the documented samples are not part of this repository")
    found: dict[str, Any] = json.loads(SAMPLES.read_text())
    return found


def request_of(sample: Mapping[str, Any]) -> tuple[str, Any]:
    name = next(each for each in sample if each.startswith("POST "))
    return name.removeprefix("POST "), sample[name]


class TestSamples:
    def test_the_twin_takes_the_documented_requests(self, env: Environment, samples: Mapping[str, Any]) -> None:
        for name in ("onhandChange", "indexquery", "exactquery"):
            path, body = request_of(samples[name])
            assert env.raw("POST", path, body).status_code == 200, name
        _, change = request_of(samples["onhandChange"])
        _, reserve = request_of(samples["reserve"])
        stock = {**change, "id": "x", **{name: reserve[name] for name in ("organizationId", "productId", "dimensions")}}
        env.raw("POST", "/onhand", stock)
        reserved = env.raw("POST", "/onhand/reserve", reserve).json()
        assert reserved.keys() == samples["reserve"]["response"].keys()
        assert reserved["processingStatus"] == "success"
        _, back = request_of(samples["unreserve"])
        returned = env.raw("POST", "/onhand/unreserve", {**back, "reservationId": reserved["reservationId"]}).json()
        same = samples["unreserve"]["response"]
        assert {**returned, "id": same["id"], "reservationId": same["reservationId"]} == same

    def test_the_documented_consumption(self, env: Environment, samples: Mapping[str, Any]) -> None:
        path, consume = request_of(samples["allocationConsume"])
        about = {name: consume[name] for name in ("organizationId", "productId", "dimensions", "targetGroups")}
        env.twin.put("usmf", "1", "11", "Bike", 10, colorId="red")
        env.raw("POST", "/allocation/allocate", {**about, "id": "a", "quantity": 8})
        assert env.raw("POST", path, consume).json()["processingStatus"] == "success"
        assert env.twin.allocated("usmf", "1", "11", "Bike") == 5
        assert env.twin.on_hand("usmf", "1", "11", "Bike") == 7

    def test_the_documented_answer_is_read(self, samples: Mapping[str, Any]) -> None:
        (row,) = wire.rows(samples["indexquery"]["response"])
        assert row.product == "M0030"
        assert row.quantity("iv.availableToReserve") == 20
        assert row.quantity("iv.none") == 0
        assert row.is_of(wire.Variant("M0030", {"colorId": "White"}))
        assert not row.is_of(wire.Variant("M0030", {"colorId": "white"}))
        assert row.quantity("@iv.@allocated") == 0
        assert wire.outcome(samples["reserve"]["response"], 200).done

    def test_what_we_send_has_the_documented_names(self, env: Environment, samples: Mapping[str, Any]) -> None:
        env.put("Seattle", "SHIRT", 9, colorId="red")
        iv = env.iv
        iv.post_change(Change("C", SEATTLE, RED, {"pos.inbound": Decimal(1)}))
        iv.reserve("K", SEATTLE, RED, Decimal(1))
        iv.release("K")
        iv.available([RED])
        iv.allocate("a", SEATTLE, RED, GROUPS, Decimal(1))
        iv.consume_allocation("c", SEATTLE, RED, GROUPS, Decimal(1), {"pos.inbound": -1})
        for name in ("onhandChange", "reserve", "unreserve", "indexquery", "allocationConsume"):
            path, documented = request_of(samples[name])
            sent = env.bodies(path)[0]
            assert documented.keys() - sent.keys() <= {"dimensionDataSource"}, name
            assert sent.keys() <= documented.keys(), name
        assert env.bodies("/allocation/consume")[0]["physicalMeasures"] == {"pos": {"inbound": "Subtraction"}}

    def test_the_second_token_is_asked_for_as_documented(self, env: Environment, samples: Mapping[str, Any]) -> None:
        seen: list[httpx.Request] = []
        env.client.event_hooks = {"request": [seen.append]}
        env.iv.available([CHAIR])
        ((_, documented),) = samples["tokenStep2"].items()
        asked = [each for each in seen if each.url.path.endswith("/token") and "tenant" not in each.url.path]
        assert [each.url.host for each in asked] == ["security.test", "gw.us-il101.gateway.powerapps.com"]
        for each in asked:
            body = json.loads(each.content)
            assert body.pop("client_assertion").startswith("entra.")
            assert {**body, "client_assertion": "{entra access token}", "context": "{environmentId}"} == (
                documented["json"]
            )
            assert (each.method, each.headers["api-version"]) == ("POST", documented["headers"]["Api-Version"])

    @pytest.mark.parametrize("case", ["case1", "case2"])
    def test_the_worked_example(self, env: Environment, samples: Mapping[str, Any], case: str) -> None:
        example = samples["atpWorkedExample"][case]
        month, today = map(int, example["today"].split("/"))
        env.clock.jump(START + timedelta(days=today - 1))
        env.put("Seattle", "CHAIR", example["onHandToday"])
        for text, kind, quantity in example["schedule"]:
            day = date(2022, month, int(text.split("/")[1]))
            measure = SUPPLY if kind == "supply" else DEMAND
            assert not failed(env.iv.schedule(Plan(text, SEATTLE, CHAIR, day, {measure: Decimal(quantity)})))
        found = env.iv.atp([CHAIR])
        assert [f"{each.day.month}/{each.day.day}" for each in found] == example["days"]
        assert [each.quantity for each in found] == example["atp"]
