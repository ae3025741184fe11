"""Business events and states by name: the vocabulary that tables, flows and people share.

Names without a mark are the product's own (Intelligent Order Management, topics/state-framework.md and
topics/finops-integration-scenarios.md); those under "ours" fill what its documentation leaves open. They are plain
text because users add their own.
"""

from __future__ import annotations

from typing import Final

# Entities
ORDER: Final = "order"
LINE: Final = "order line"
FULFILLMENT_ORDER: Final = "fulfillment order"
FULFILLMENT_LINE: Final = "fulfillment order line"

# States
NEW: Final = "New"
IN_PROGRESS: Final = "In Progress"
ON_HOLD: Final = "On Hold"
LINE_ON_HOLD: Final = "Sales Order Product on Hold"
IN_FULFILLMENT: Final = "Fulfillment in Process"
COMPLETED: Final = "Completed"
CANCELED: Final = "Canceled"

# State reasons
INVENTORY_CHECKED: Final = "Inventory Check Successful"
BACKORDER_HOLD: Final = "Backorder Hold"
PREORDER_HOLD: Final = "Preorder Hold"
INVENTORY_NOT_FOUND: Final = "Inventory not found"
SENT_TO_FULFILLMENT: Final = "Sent To Fulfillment"
PICKED: Final = "Picked"
PACKED: Final = "Packed"
FULFILLED: Final = "Fulfilled"
# ours
RECEIVED: Final = "Received"
HEADER_VALIDATED: Final = "Header Validated"
VALIDATED: Final = "Validated"
ASSIGNED: Final = "Assigned"
SOURCED: Final = "Fulfillment Order Created"
VALIDATION_FAILED: Final = "Validation Failed"
ASSIGNMENT_FAILED: Final = "Assignment Failed"
OPTIMIZATION_FAILED: Final = "Optimization Failed"
CREATION_FAILED: Final = "Fulfillment Order Failed"
SENDING_FAILED: Final = "Sending Failed"
SENDING_IN_DOUBT: Final = "Sending In Doubt"
SYNC_ERROR: Final = "Sync Error"
HELD: Final = "Held"
RELEASED: Final = "Released"
PARTIALLY_PICKED: Final = "Partially Picked"
PARTIALLY_PACKED: Final = "Partially Packed"
PARTIALLY_SHIPPED: Final = "Partially Shipped"
SHIPPED: Final = "Shipped"
PARTIALLY_INVOICED: Final = "Partially Invoiced"

# Business events on the order
NEW_ORDER: Final = "New order"
HEADER_VALID: Final = "Validation of Order Header has Succeeded"
HEADER_INVALID: Final = "Validation of Order Header has Failed"
LINES_VALID: Final = "Validation of Order Lines has Succeeded"
LINES_INVALID: Final = "Validation of Order Lines has Failed"
OPTIMIZED: Final = "Fulfillment optimization request succeeded"
NOT_OPTIMIZED: Final = "Fulfillment optimization request failed"
FULFILLMENT_CREATED: Final = "Creation of Fulfillment Order has Succeeded"
FULFILLMENT_NOT_CREATED: Final = "Creation of Fulfillment Order has Failed"
FULFILLMENT_LINE_CREATED: Final = "Creation of Fulfillment Line succeeded"
ON_HAND: Final = "On Hand Check Success"
NOT_ON_HAND: Final = "On Hand Check Failed"
ORDER_SHIPPED: Final = "order shipped"
ORDER_INVOICED: Final = "order invoiced"
BILLING_CONFIRMED: Final = "Billing of order confirmed by billing provider"
# ours
DATA_ASSIGNED: Final = "Data assignment has Succeeded"
DATA_NOT_ASSIGNED: Final = "Data assignment has Failed"
SOURCE_ASSIGNED: Final = "Assignment of Fulfillment Source has Succeeded"
SOURCE_NOT_ASSIGNED: Final = "Assignment of Fulfillment Source has Failed"
SENT: Final = "Send order to fulfillment has Succeeded"
NOT_SENT: Final = "Send order to fulfillment has Failed"
SENDING_UNKNOWN: Final = "Send order to fulfillment is in doubt"
STOCK_MISSING: Final = "Inventory not found"
PREORDERED: Final = "Preorder accepted"
ORDER_PARTIALLY_PICKED: Final = "order partially picked"
ORDER_PICKED: Final = "order picked"
ORDER_PARTIALLY_PACKED: Final = "order partially packed"
ORDER_PACKED: Final = "order packed"
ORDER_PARTIALLY_SHIPPED: Final = "order partially shipped"
ORDER_PARTIALLY_INVOICED: Final = "order partially invoiced"
ORDER_CANCELED: Final = "order canceled"
ORDER_HELD: Final = "order held"
ORDER_RELEASED: Final = "order released"
BACKORDER_DUE: Final = "Backorder job due"
PREORDER_DUE: Final = "Preorder job due"
BILLING_SENT: Final = "Send sales order lines to billing has Succeeded"
BILLING_NOT_SENT: Final = "Send sales order lines to billing has Failed"
INVOICE_REQUESTED: Final = "Send to Invoice has Succeeded"
INVOICE_NOT_REQUESTED: Final = "Send to Invoice has Failed"
STATUS_TOLD: Final = "Order status update has Succeeded"
STATUS_NOT_TOLD: Final = "Order status update has Failed"
BILLING_DATA_ASSIGNED: Final = "Assignment of billing data has Succeeded"
BILLING_DATA_NOT_ASSIGNED: Final = "Assignment of billing data has Failed"
ORDER_STATUS_SENT: Final = "Send order status has Succeeded"
ORDER_STATUS_NOT_SENT: Final = "Send order status has Failed"
LINE_NOT_SYNCED: Final = "Synchronization of Order Line has Failed"

# Business events of progress, per entity: (some of it, all of it) for picked, packed, shipped, invoiced
PROGRESS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    ORDER: (
        (ORDER_PARTIALLY_PICKED, ORDER_PICKED),
        (ORDER_PARTIALLY_PACKED, ORDER_PACKED),
        (ORDER_PARTIALLY_SHIPPED, ORDER_SHIPPED),
        (ORDER_PARTIALLY_INVOICED, ORDER_INVOICED),
    ),
    **{
        entity: tuple((f"{name} partially {stage}", f"{name} {stage}") for stage in stages)
        for entity, name, stages in (
            (LINE, "order line", ("picked", "packed", "shipped", "invoiced")),
            (FULFILLMENT_ORDER, "fulfillment order", ("picked", "packed", "shipped")),
            (FULFILLMENT_LINE, "fulfillment order line", ("picked", "packed", "shipped")),
        )
    },
}
