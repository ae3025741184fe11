"""Order orchestration as a pure domain core: states, policies, flows, allocation, and the ports around them.

This is the front door: every name here is public and stays. Inside the library, import from the defining module.
"""

from __future__ import annotations

from iom_core.codec import from_json as from_json
from iom_core.codec import to_json as to_json
from iom_core.decide import Decision as Decision
from iom_core.decide import Setup as Setup
from iom_core.decide import decide as decide
from iom_core.errors import Fault as Fault
from iom_core.errors import Misconfigured as Misconfigured
from iom_core.errors import Misunderstood as Misunderstood
from iom_core.errors import Unavailable as Unavailable
from iom_core.flow import Flow as Flow
from iom_core.flow import FlowBuilder as FlowBuilder
from iom_core.flow import Step as Step
from iom_core.flow import StepType as StepType
from iom_core.lifecycle import InvalidTable as InvalidTable
from iom_core.lifecycle import Row as Row
from iom_core.lifecycle import StateDefinition as StateDefinition
from iom_core.lifecycle import StateFramework as StateFramework
from iom_core.lifecycle import StateTable as StateTable
from iom_core.lifecycle import Status as Status
from iom_core.mapping import IdMapping as IdMapping
from iom_core.mapping import MappingRow as MappingRow
from iom_core.messages import LineQuantity as LineQuantity
from iom_core.messages import Message as Message
from iom_core.messages import OrderDraft as OrderDraft
from iom_core.messages import OrderLineDraft as OrderLineDraft
from iom_core.orchestrator import Orchestrator as Orchestrator
from iom_core.order import Change as Change
from iom_core.order import FulfillmentOrder as FulfillmentOrder
from iom_core.order import OrderLine as OrderLine
from iom_core.order import SalesOrder as SalesOrder
from iom_core.outcome import Refused as Refused
from iom_core.outcome import failed as failed
from iom_core.policies import Criticality as Criticality
from iom_core.policies import Policy as Policy
from iom_core.providers import Provider as Provider
from iom_core.scenarios import Scenario as Scenario
from iom_core.values import Address as Address
from iom_core.values import GeoPoint as GeoPoint
from iom_core.values import Money as Money
from iom_core.values import Quantity as Quantity

__all__ = [
    "Address",
    "Change",
    "Criticality",
    "Decision",
    "Fault",
    "Flow",
    "FlowBuilder",
    "FulfillmentOrder",
    "GeoPoint",
    "IdMapping",
    "InvalidTable",
    "LineQuantity",
    "MappingRow",
    "Message",
    "Misconfigured",
    "Misunderstood",
    "Money",
    "Orchestrator",
    "OrderDraft",
    "OrderLine",
    "OrderLineDraft",
    "Policy",
    "Provider",
    "Quantity",
    "Refused",
    "Row",
    "SalesOrder",
    "Scenario",
    "Setup",
    "StateDefinition",
    "StateFramework",
    "StateTable",
    "Status",
    "Step",
    "StepType",
    "Unavailable",
    "decide",
    "failed",
    "from_json",
    "to_json",
]
