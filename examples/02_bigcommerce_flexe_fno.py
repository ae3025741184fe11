"""S2: BigCommerce sells, Flexe ships in two parcels, and only then F&O gets the order, to account for it."""

from decimal import Decimal

from iom_core import scenarios
from iom_core.testing import World

world = World.for_scenario(scenarios.BIGCOMMERCE_FLEXE_FNO)
world.flexe.per_shipment = Decimal(1)  # the warehouse packs one chair per parcel
order = world.receive({"CHAIR": 2})
world.run_until_quiet()

print(world.timeline(order))
for shipment in world.order(order).shipments:
    print(f"{shipment.id} left with {shipment.carrier}, tracking number {shipment.tracking_number}")
