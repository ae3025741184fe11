"""Orders to put into the twin: a few re-created from the published examples, and as many more as a seed gives.

An order here is a V2 order with ``products``, ``shipping_addresses``, ``coupons`` and ``fees`` as lists in place of the
links, which is what `BigCommerceTwin.place` takes. All amounts are worked out in whole minor units and add up exactly:
lines + shipping + handling + wrapping - ``discount_amount`` - ``coupon_discount`` = total, tax included.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from typing import Any, Final

import attrs

from iom_core.values import largest_remainder, minor_units

Json = Any
"""A JSON value in the shape BigCommerce gives it."""


@attrs.frozen
class CatalogItem:
    """Something the store sells. *cents* is its price in US cents, tax included; *digital* ones are never shipped."""

    product_id: int
    sku: str
    name: str
    cents: int
    digital: bool = False


CATALOG: Final = (
    CatalogItem(1, "CHAIR-OAK", "Oak chair", 12_900),
    CatalogItem(2, "TABLE-OAK", "Oak table", 48_900),
    CatalogItem(3, "LAMP-DESK", "Desk lamp", 3_995),
    CatalogItem(4, "MUG-BLUE", "Blue mug", 1_250),
    CatalogItem(5, "MUG-RED", "Red mug", 1_250),
    CatalogItem(6, "TOWEL-LINEN", "Linen towel", 5_599),
    CatalogItem(7, "COFFEE-1KG", "Coffee beans, 1 kg", 2_490),
    CatalogItem(8, "BREWER", "Pour-over brewer", 4_500),
    CatalogItem(9, "FILTER-100", "Paper filters, 100", 799),
    CatalogItem(10, "PLANT-FERN", "Fern in a pot", 1_875),
    CatalogItem(11, "RUG-WOOL", "Wool rug", 21_050),
    CatalogItem(12, "EBOOK-BREW", "Brewing, an e-book", 1_499, digital=True),
)
"""Everything the samples sell under a SKU; an ERP or a warehouse that plays along must know these."""

_SHIPPABLE: Final = tuple(item for item in CATALOG if not item.digital)

RATES: Final[Mapping[str, tuple[int, int]]] = {
    "USD": (1, 1),
    "EUR": (92, 100),
    "GBP": (79, 100),
    "JPY": (3, 2),  # from cents to yen, which have no minor unit
    "KWD": (31, 10),  # from cents to fils, of which a dinar has a thousand
}
"""By currency, what a US cent is worth in its minor units, as a fraction."""

_TAX: Final[Mapping[str, int]] = {"USD": 825, "EUR": 1900, "GBP": 2000, "JPY": 1000, "KWD": 0}
"""Tax in hundredths of a percent."""

_PEOPLE: Final = (
    ("Ada", "Byron", "1 Engine Way", "Austin", "Texas", "78701", "United States", "US"),
    ("Sören", "Þórðarson", "Bankastræti 7", "Reykjavík", "", "101", "Iceland", "IS"),
    ("陽子", "佐藤", "千代田1-1", "東京", "東京都", "100-0001", "Japan", "JP"),
    ("Zoë", "Müller-Lüdenscheidt", "Königsallee 3", "Düsseldorf", "NRW", "40212", "Germany", "DE"),
    ("فاطمة", "الصباح", "شارع الخليج 12", "الكويت", "", "13001", "Kuwait", "KW"),
    ("Grace", "O'Hopper", "42 Compiler Row", "Arlington", "Virginia", "22201", "United States", "US"),
    ("Ana-María", "Peña", "C/ Mayor 8, 2º", "A Coruña", "Galicia", "15001", "Spain", "ES"),
    ("Łukasz", "Żółć", "ul. Długa 5", "Łódź", "", "90-001", "Poland", "PL"),
)
_CUSTOM: Final = ("Gift box", "Engraving «für dich»", "Carte de vœux")
CUSTOM_NAMES: Final = (*_CUSTOM, "Custom journal")
"""The names of the custom products, which have no SKU."""
_EPOCH: Final = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)


@attrs.frozen
class Line:
    """A line to be made into a V2 order product. *unit* is its price in minor units; *off* what a coupon takes."""

    name: str
    unit: int
    quantity: int = 1
    sku: str = ""
    product_id: int = 0
    kind: str = "physical"
    address: int = 1
    off: int = 0
    parent: int | None = None


def order_of(
    lines: Sequence[Line],
    *,
    currency: str = "USD",
    status: int = 11,
    customer: int = 0,
    person: int = 0,
    recipients: Sequence[int] = (0,),
    shipping: Sequence[int] = (0,),
    handling: int = 0,
    wrapping: int = 0,
    discount: int = 0,
    code: str = "SAVE",
    placed: datetime = _EPOCH,
    number: int | None = None,
    method: str = "Credit Card",
    note: str = "",
) -> dict[str, Json]:
    """Return a complete order whose sums hold; all amounts are whole minor units of *currency*, tax included.

    *recipients* are the people (see the module) at the addresses 1, 2, …; *shipping* is what each address costs.
    *discount* is off the whole order and shown on the lines in proportion; the lines' *off* is a coupon's.
    """
    rate = _TAX[currency]
    gross = [line.unit * line.quantity for line in lines]
    coupon = sum(line.off for line in lines)
    spread = largest_remainder(discount, [Decimal(amount) for amount in gross]) if discount else [0] * len(lines)
    text = _Text(currency)
    products = [
        _product(number_, line, total, part, rate, text, code)
        for number_, (line, total, part) in enumerate(zip(lines, gross, spread), 1)
    ]
    subtotal = sum(gross)
    total = subtotal + sum(shipping) + handling + wrapping - discount - coupon
    shipped = [line for line in lines if line.kind == "physical" and line.address]
    stamp = format_datetime(placed)
    amounts = {"subtotal": subtotal, "shipping_cost": sum(shipping), "handling_cost": handling}
    amounts |= {"wrapping_cost": wrapping, "total": total}
    order: dict[str, Json] = {
        "customer_id": customer,
        "date_created": stamp,
        "date_modified": stamp,
        "date_shipped": "",
        "cart_id": f"cart-{number or 0}-{subtotal}",
        "status_id": status,
        **{f"{name}_{kind}": text.of(part) for name, amount in amounts.items() for kind, part in _taxed(amount, rate)},
        "base_shipping_cost": text.of(sum(shipping)),
        "base_handling_cost": text.of(handling),
        "base_wrapping_cost": text.of(wrapping),
        "is_tax_inclusive_pricing": True,
        "items_total": sum(line.quantity for line in lines),
        "items_shipped": 0,
        "payment_method": method,
        "payment_provider_id": "",
        "payment_status": "captured",
        "refunded_amount": "0.0000",
        "order_is_digital": not shipped,
        "store_credit_amount": "0.0000",
        "gift_certificate_amount": "0.0000",
        "ip_address": "192.0.2.1",
        "ip_address_v6": "",
        "geoip_country": _PEOPLE[person][6],
        "geoip_country_iso2": _PEOPLE[person][7],
        "currency_id": 1,
        "currency_code": currency,
        "currency_exchange_rate": "1.0000000000",
        "default_currency_id": 1,
        "default_currency_code": currency,
        "store_default_currency_code": "USD",
        "store_default_to_transactional_exchange_rate": "1.0000000000",
        "staff_notes": "",
        "customer_message": note,
        "discount_amount": text.of(discount),
        "coupon_discount": text.of(coupon),
        "shipping_address_count": len(recipients) if shipped else 0,
        "is_deleted": False,
        "is_email_opt_in": False,
        "ebay_order_id": "0",
        "order_source": "www",
        "channel_id": 1,
        "external_source": None,
        "external_id": None,
        "external_merchant_id": None,
        "external_order_id": "",
        "tax_provider_id": "BasicTaxProvider",
        "customer_locale": "en",
        "billing_address": {**_contact(person), "form_fields": []},
        "products": products,
        "shipping_addresses": [
            _address(place, who, shipping[place - 1], rate, text, shipped)
            for place, who in enumerate(recipients, 1)
            if shipped
        ],
        "coupons": [{"id": 1, "coupon_id": 1, "code": code, "amount": 5, "type": 0, "discount": float(text.of(coupon))}]
        if coupon
        else [],
        "fees": [],
    }
    if number is not None:
        order["id"] = number
    return order


@attrs.frozen
class _Text:
    currency: str

    def of(self, amount: int) -> str:
        """Write minor units as BigCommerce does: text with four decimals."""
        return f"{Decimal(amount).scaleb(-minor_units(self.currency)):.4f}"


def _taxed(amount: int, rate: int) -> tuple[tuple[str, int], ...]:
    without = (amount * 20_000 + 10_000 + rate) // (2 * (10_000 + rate))
    return (("ex_tax", without), ("inc_tax", amount), ("tax", amount - without))


def _product(number: int, line: Line, total: int, part: int, rate: int, text: _Text, code: str) -> dict[str, Json]:
    applied: list[Json] = []
    if line.off:
        applied.append({"id": "coupon", "amount": text.of(line.off), "name": code, "code": code, "target": "product"})
    if part:
        applied.append(
            {"id": "manual-discount", "amount": text.of(part), "name": "Discount", "code": None, "target": "order"}
        )
    amounts = {"price": line.unit, "total": total}
    return {
        "id": number,
        "product_id": line.product_id,
        "variant_id": line.product_id,
        "order_pickup_method_id": 0,
        "order_address_id": line.address if line.kind == "physical" else 0,
        "name": line.name,
        "name_customer": line.name,
        "name_merchant": line.name,
        "sku": line.sku,
        "upc": "",
        "type": line.kind,
        **{f"{name}_{kind}": text.of(each) for name, amount in amounts.items() for kind, each in _taxed(amount, rate)},
        "base_price": text.of(line.unit),
        "base_total": text.of(total),
        "quantity": line.quantity,
        "base_cost_price": "0.0000",
        "cost_price_inc_tax": "0.0000",
        "cost_price_ex_tax": "0.0000",
        "cost_price_tax": "0.0000",
        "weight": "1.0000" if number % 2 else 1,
        "width": "1.0000",
        "height": "1.0000",
        "depth": "1.0000",
        "is_refunded": False,
        "quantity_refunded": 0,
        "refund_amount": "0.0000",
        "return_id": 0,
        "wrapping_id": 0,
        "wrapping_name": "",
        "base_wrapping_cost": "0.0000",
        "wrapping_cost_ex_tax": "0.0000",
        "wrapping_cost_inc_tax": "0.0000",
        "wrapping_cost_tax": "0.0000",
        "wrapping_message": "",
        "quantity_shipped": 0,
        "fixed_shipping_cost": "0.0000",
        "ebay_item_id": "",
        "ebay_transaction_id": "",
        "option_set_id": None,
        "parent_order_product_id": line.parent,
        "is_bundled_product": line.parent is not None,
        "bin_picking_number": "",
        "external_id": None,
        "brand": "",
        "applied_discounts": applied,
        "product_options": [],
        "configurable_fields": [],
        "event_name": None,
        "event_date": None,
        "gift_certificate_id": None,
        "discounted_total_inc_tax": text.of(total - line.off - part),
    }


def _contact(person: int) -> dict[str, Json]:
    first, last, street, city, state, code, country, iso2 = _PEOPLE[person]
    return {
        "first_name": first,
        "last_name": last,
        "company": "",
        "street_1": street,
        "street_2": "",
        "city": city,
        "state": state,
        "zip": code,
        "country": country,
        "country_iso2": iso2,
        "phone": "+1 202 555 0100",
        "email": f"customer{person}@example.com",
    }


def _address(place: int, who: int, cost: int, rate: int, text: _Text, shipped: Sequence[Line]) -> dict[str, Json]:
    return {
        "id": place,
        **_contact(who),
        "items_total": sum(line.quantity for line in shipped if line.address == place),
        "items_shipped": 0,
        "shipping_method": "Flat Rate" if cost else "Free Shipping",
        "base_cost": text.of(cost),
        **{f"cost_{kind}": text.of(part) for kind, part in _taxed(cost, rate)},
        "cost_tax_class_id": 2,
        "base_handling_cost": "0.0000",
        "handling_cost_ex_tax": "0.0000",
        "handling_cost_inc_tax": "0.0000",
        "handling_cost_tax": "0.0000",
        "handling_cost_tax_class_id": 2,
        "shipping_zone_id": 1,
        "shipping_zone_name": "Everywhere",
        "form_fields": [],
    }


def recorded_orders() -> tuple[dict[str, Json], ...]:
    """Return orders with the numbers and shapes of the published examples, in people and words of our own.

    100: a customer's, 17 units, no discounts. 149: a pick-list parent with its child, a discount over the order. 218:
    awaiting payment, with a discount and a coupon, both of which are off the total. 247: eleven units and shipping.
    229: two addresses.
    """
    towel, brewer, lamp = CATALOG[5], CATALOG[7], CATALOG[2]
    return (
        order_of(
            [
                Line(towel.name, 2_129, 15, towel.sku, towel.product_id),
                Line(lamp.name, 2_130, 2, lamp.sku, lamp.product_id),
            ],
            customer=20,
            number=100,
            placed=datetime(2018, 1, 10, 21, 5, 30, tzinfo=UTC),
        ),
        order_of(
            [
                Line(towel.name, 6_523, 1, towel.sku, towel.product_id),
                Line(brewer.name, 0, 1, brewer.sku, brewer.product_id, parent=1),
            ],
            discount=159,
            number=149,
            placed=datetime(2018, 6, 1, 9, 0, tzinfo=UTC),
        ),
        order_of(
            [
                Line(CATALOG[3].name, 1_696, 3, CATALOG[3].sku, 4, off=500),
                Line(CATALOG[4].name, 1_696, 1, CATALOG[4].sku, 5),
            ],
            customer=11,
            status=7,
            shipping=(1_200,),
            discount=500,
            method="Cash",
            number=218,
            placed=datetime(2019, 3, 5, 21, 40, 11, tzinfo=UTC),
        ),
        order_of(
            [
                Line(CATALOG[8].name, 1_299, 1, CATALOG[8].sku, 9, address=1),
                Line(CATALOG[9].name, 1_299, 1, CATALOG[9].sku, 10, address=2),
            ],
            recipients=(5, 0),
            shipping=(1_299, 1_299),
            number=229,
            placed=datetime(2019, 3, 13, 12, 0, tzinfo=UTC),
        ),
        order_of(
            [Line("Custom journal", 9_097, 10), Line(CATALOG[8].name, 9_104, 1, CATALOG[8].sku, 9)],
            customer=11,
            shipping=(800,),
            note="Custom Journal Added",
            number=247,
            placed=datetime(2019, 6, 20, 16, 7, 8, tzinfo=UTC),
        ),
    )


def generate_order(rng: random.Random, n: int) -> dict[str, Json]:
    """Return the *n*-th order of a stream, ready to be fulfilled (status 11): the same *rng* gives the same order.

    Among them are guests, several addresses, digital lines, pick lists, custom products, coupons, discounts, names in
    many scripts, and currencies with none, two and three decimals. Every order has at least one physical line, and
    only SKUs of `CATALOG` but for custom products, which have none.
    """
    currency = rng.choice(tuple(RATES))
    above, below = RATES[currency]
    recipients = tuple(rng.sample(range(len(_PEOPLE)), rng.choice((1, 1, 1, 2, 3))))
    lines: list[Line] = []
    for place in range(1, len(recipients) + 1):
        lines += [
            Line(item.name, item.cents * above // below, rng.randint(1, 5), item.sku, item.product_id, address=place)
            for item in rng.sample(_SHIPPABLE, rng.randint(1, 3))
        ]
    if rng.random() < 0.2:
        ebook = CATALOG[-1]
        lines.append(Line(ebook.name, ebook.cents * above // below, 1, ebook.sku, ebook.product_id, "digital"))
    if rng.random() < 0.1:
        lines.append(Line(rng.choice(_CUSTOM), rng.randint(100, 900) * above // below, 1))
    if rng.random() < 0.1:
        child = rng.choice(_SHIPPABLE)
        lines.append(Line(child.name, 0, lines[0].quantity, child.sku, child.product_id, parent=1))
    if rng.random() < 0.3:
        at = rng.randrange(len(lines))
        lines[at] = attrs.evolve(lines[at], off=lines[at].unit * lines[at].quantity // rng.randint(4, 20))
    subtotal = sum(line.unit * line.quantity - line.off for line in lines)
    return order_of(
        lines,
        currency=currency,
        customer=0 if rng.random() < 0.4 else rng.randint(1, 500),
        person=rng.randrange(len(_PEOPLE)),
        recipients=recipients,
        shipping=tuple(rng.choice((0, 495, 1_250)) * above // below for _ in recipients),
        handling=rng.choice((0, 0, 0, 200)) * above // below,
        wrapping=rng.choice((0, 0, 0, 350)) * above // below,
        discount=subtotal // rng.randint(5, 40) if rng.random() < 0.3 else 0,
        code=f"SAVE{rng.randint(1, 99)}",
        placed=_EPOCH + timedelta(seconds=37 * n),
        note=rng.choice(("", "", "Please ring twice – danke!", "🎁 <b>gift</b>; DROP TABLE orders;--")),
    )
