"""The six documented scenarios as data, side by side: where orders come from, who ships, who accounts.

Source: Intelligent Order Management, topics/finops-integration-scenarios.md. They are points of a grid: a flow for
another combination names other providers, it needs no new code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from iom_core import events as ev
from iom_core import policies as p
from iom_core import providers as actions
from iom_core.flow import Catalog, Flow, FlowBuilder, ProviderDefinition, StepType
from iom_core.policies import Policy

BIGCOMMERCE: Final = "bigcommerce"
FNO: Final = "fno"
FLEXE: Final = "flexe"
SAP: Final = "sap"
IOM: Final = "iom"
DOM: Final = str(actions.OPTIMIZER)

COMPANY: Final = "Company"
CUSTOMER: Final = "Invoice customer"
SITE: Final = "Site"
LINE_COMPANY: Final = "Line company"
PLACE: Final = "Site and warehouse"
LINE_SITE: Final = "Line site"


@attrs.frozen
class Scenario:
    """A documented scenario: its flow, the policies the flow names, and the systems in their roles.

    *told* is the documented sequence of status updates to the channel for an order shipped at once.
    """

    id: str
    name: str
    flow: Flow
    channel: str
    fulfiller: str
    ledger: str
    policies: tuple[Policy, ...] = ()
    optimized: bool = False
    told: tuple[str, ...] = ()


def assignment(
    companies: Mapping[str, str],
    customers: Mapping[str, str],
    places: Mapping[str, tuple[str, str]],
    default: str,
) -> tuple[Policy, ...]:
    """Write the usual data assignment: a company by ship-to country, then by company its invoice customer and place.

    *companies* maps ISO countries to companies, *default* is for all others; *customers* and *places* (site,
    warehouse) are by company.
    """
    by_country: list[tuple[p.Test | None, Mapping[str, p.Value]]] = [
        (p.equals("ship_to.country", country), {"company": company}) for country, company in companies.items()
    ]
    line_companies: list[tuple[p.Test | None, Mapping[str, p.Value]]] = [
        (p.equals("order.company", company), {"company": company}) for company in customers
    ]
    return (
        p.assign(COMPANY, ev.ORDER, *by_country, (None, {"company": default})),
        p.assign(
            CUSTOMER,
            ev.ORDER,
            *((p.equals("company", company), {"invoice_customer": account}) for company, account in customers.items()),
        ),
        p.assign(
            SITE, ev.ORDER, *((p.equals("company", company), {"site": site}) for company, (site, _) in places.items())
        ),
        p.assign(LINE_COMPANY, ev.LINE, *line_companies),
        p.assign(
            PLACE,
            ev.LINE,
            *(
                (p.equals("order.company", company), {"site": site, "warehouse": warehouse})
                for company, (site, warehouse) in places.items()
            ),
        ),
        p.assign(
            LINE_SITE,
            ev.LINE,
            *((p.equals("order.company", company), {"site": site}) for company, (site, _) in places.items()),
        ),
    )


ASSIGNMENT: Final = assignment(
    companies={"DE": "demf", "AT": "demf", "FR": "demf"},
    customers={"usmf": "US-WEB", "demf": "DE-WEB"},
    places={"usmf": ("1", "11"), "demf": ("2", "21")},
    default="usmf",
)
"""The data assignment of the demo's two companies."""

_ASSIGN: Final = (COMPANY, CUSTOMER, SITE, LINE_COMPANY, PLACE)
_ASSIGN_WITHOUT_WAREHOUSE: Final = (COMPANY, CUSTOMER, SITE, LINE_COMPANY, LINE_SITE)

_SENT: Final = "Send order to fulfillment"
_LINES_SENT: Final = "Send sales order lines to billing"


def _validated(name: str, description: str) -> FlowBuilder:
    return FlowBuilder(name, description).validate_header().validate_lines()


def _create(flow: FlowBuilder, *parameters: tuple[str, str]) -> FlowBuilder:
    return flow.action(
        "Create fulfillment orders", StepType.CUSTOM, IOM, actions.CREATE_FULFILLMENT, parameters=parameters
    )


def _shipped_by_flexe(flow: FlowBuilder) -> FlowBuilder:
    # An outbound order goes to one place, and digital lines go nowhere.
    return _create(flow, ("fulfilled by", FLEXE), ("digital lines", "no"), ("one address each", "yes")).action(
        "Send to Flexe",
        StepType.SEND,
        FLEXE,
        actions.SEND_FULFILLMENT_ORDER,
        on=(ev.FULFILLMENT_CREATED,),
        per=ev.FULFILLMENT_ORDER,
    )


def _told_of_shipping(flow: FlowBuilder, sent: str) -> FlowBuilder:
    """The shop hears of every delivery after step *sent*: in part each time, then the whole, then the end."""
    return (
        flow.tell(
            "Tell BigCommerce: partially shipped",
            BIGCOMMERCE,
            actions.UPDATE_PARTIALLY_SHIPPED,
            ev.ORDER_PARTIALLY_SHIPPED,
            each_time=True,
        )
        .tell("Tell BigCommerce: shipped", BIGCOMMERCE, actions.UPDATE_SHIPPED, ev.ORDER_SHIPPED, after=(sent,))
        .tell("Tell BigCommerce: completed", BIGCOMMERCE, actions.UPDATE_COMPLETED, ev.ORDER_INVOICED)
    )


S1: Final = _told_of_shipping(
    _create(
        _validated("bigcommerce-fno-fno", "BigCommerce orders, fulfilled and accounted in F&O").assign(
            "Assign company, site and warehouse", *_ASSIGN
        ),
        ("fulfilled by", FNO),
    ).action(_SENT, StepType.SEND_FNO, FNO, actions.SEND_ORDER),
    _SENT,
).build()

S2: Final = (
    _shipped_by_flexe(_validated("bigcommerce-flexe-fno", "BigCommerce orders, shipped by Flexe, accounted in F&O"))
    .assign(
        # Only now: the goods have left, and F&O needs to know whose books they leave.
        "Assign company, site and warehouse",
        *_ASSIGN,
        on=(ev.ORDER_SHIPPED,),
        succeeded=ev.BILLING_DATA_ASSIGNED,
        failed=ev.BILLING_DATA_NOT_ASSIGNED,
    )
    .action(
        "Send order to F&O",
        StepType.SEND_FNO,
        FNO,
        actions.SEND_ORDER,
        succeeded=ev.BILLING_SENT,
        failed=ev.BILLING_NOT_SENT,
    )
    .tell("Tell BigCommerce: completed", BIGCOMMERCE, actions.UPDATE_COMPLETED, ev.ORDER_INVOICED)
    .build()
)

S3: Final = (
    _shipped_by_flexe(_validated("fno-flexe-fno", "F&O orders, shipped by Flexe, accounted in F&O"))
    .action(
        "Send order status to F&O",
        StepType.CUSTOM,
        FNO,
        actions.SEND_STATUS,
        on=(ev.ORDER_SHIPPED,),
        succeeded=ev.ORDER_STATUS_SENT,
        failed=ev.ORDER_STATUS_NOT_SENT,
    )
    .build()
)

# F&O has the order already: nothing is sent, its warehouse works on it.
S4: Final = _create(
    _validated("fno-fno-fno", "F&O orders, fulfilled and accounted in F&O"),
    ("fulfilled by", FNO),
    ("already sent", "yes"),
).build()

S5: Final = (
    _shipped_by_flexe(_validated("fno-flexe-sap", "F&O orders, shipped by Flexe, invoiced in SAP"))
    .action("Send to SAP for invoicing", StepType.INVOICE, SAP, actions.SEND_INVOICE, on=(ev.ORDER_SHIPPED,))
    .build()
)

S6: Final = _told_of_shipping(
    _validated("bigcommerce-dom-fno", "BigCommerce orders, sourced by optimization, fulfilled and accounted in F&O")
    .assign("Assign company and site", *_ASSIGN_WITHOUT_WAREHOUSE)
    .action(
        "Send to Fulfillment Optimization",
        StepType.OPTIMIZE,
        DOM,
        actions.OPTIMIZE,
        on=(ev.DATA_ASSIGNED, ev.BACKORDER_DUE),
        each_time=True,
        parameters=(("fulfilled by", FNO),),
    )
    .action(
        _LINES_SENT,
        StepType.SEND_FNO,
        FNO,
        actions.SEND_LINES,
        on=(ev.FULFILLMENT_CREATED,),
        succeeded=ev.BILLING_SENT,
        failed=ev.BILLING_NOT_SENT,
        each_time=True,
    ),
    _LINES_SENT,
).build()

_TWICE: Final = ("shipped", "completed")

# fmt: off
BIGCOMMERCE_FNO_FNO:   Final = Scenario("S1", S1.name, S1, BIGCOMMERCE, FNO,   FNO, ASSIGNMENT, told=_TWICE)
BIGCOMMERCE_FLEXE_FNO: Final = Scenario("S2", S2.name, S2, BIGCOMMERCE, FLEXE, FNO, ASSIGNMENT, told=("completed",))
FNO_FLEXE_FNO:         Final = Scenario("S3", S3.name, S3, FNO,         FLEXE, FNO)
FNO_FNO_FNO:           Final = Scenario("S4", S4.name, S4, FNO,         FNO,   FNO)
FNO_FLEXE_SAP:         Final = Scenario("S5", S5.name, S5, FNO,         FLEXE, SAP)
BIGCOMMERCE_DOM_FNO:   Final = Scenario("S6", S6.name, S6, BIGCOMMERCE, FNO,   FNO, ASSIGNMENT, True, _TWICE)
# fmt: on

SCENARIOS: Final[Mapping[str, Scenario]] = {
    each.name: each
    for each in (
        BIGCOMMERCE_FNO_FNO,
        BIGCOMMERCE_FLEXE_FNO,
        FNO_FLEXE_FNO,
        FNO_FNO_FNO,
        FNO_FLEXE_SAP,
        BIGCOMMERCE_DOM_FNO,
    )
}
"""The six scenarios by name."""


def named(text: str) -> Scenario:
    """Return a scenario by name or number (``"S1"``); raises `KeyError` with the known ones."""
    for each in SCENARIOS.values():
        if text.lower() in (each.name, each.id.lower()):
            return each
    known = ", ".join(f"{each.id} {each.name}" for each in SCENARIOS.values())
    raise KeyError(f"there is no scenario {text!r}; known are {known}")


def _catalog() -> Catalog:
    """Gather what the scenarios' flows name: every provider and policy, without connections."""
    providers: dict[str, ProviderDefinition] = {}
    roles = {
        BIGCOMMERCE: (actions.CHANNEL_ACTIONS, frozenset[str]()),
        FNO: (actions.ERP_ACTIONS, actions.SHIPPING_EVENTS | actions.BILLING_EVENTS),
        FLEXE: (actions.FULFILLER_ACTIONS, actions.SHIPPING_EVENTS),
        SAP: (actions.LEDGER_ACTIONS, actions.BILLING_EVENTS),
        DOM: (actions.OPTIMIZER_ACTIONS, frozenset[str]()),
        IOM: (actions.INTERNAL_ACTIONS, frozenset[str]()),
    }
    for name, (definitions, raised) in roles.items():
        providers[name] = ProviderDefinition(name, {each.name: each for each in definitions}, raised)
    return Catalog(providers, {each.name: each for each in ASSIGNMENT})


CATALOG: Final = _catalog()
"""What the six flows may name; publishing them is checked against it, without any connection."""
