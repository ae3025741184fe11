"""S4: the order is entered, shipped and invoiced in F&O; we only follow it."""

from iom_core import scenarios
from iom_core.testing import World

world = World.for_scenario(scenarios.FNO_FNO_FNO)
order = world.receive({"CHAIR": 2})
world.run_until_quiet()

print(world.timeline(order))
print(f"invoiced: {world.order(order).invoiced_total}")
