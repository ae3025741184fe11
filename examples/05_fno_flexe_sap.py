"""S5: F&O sells, Flexe ships, SAP invoices; SAP is down for a while, and nothing is lost."""

from iom_core import Unavailable, scenarios
from iom_core.testing import World

world = World.for_scenario(scenarios.FNO_FLEXE_SAP)
world.sap.failures.before.extend([Unavailable("sap", "maintenance", retry_after=600)] * 12)  # pulls and requests fail
order = world.receive({"CHAIR": 2})
world.run_until_quiet()

print(world.timeline(order))
print(f"invoiced by {world.order(order).invoices[0].system}: {world.order(order).invoiced_total}")
