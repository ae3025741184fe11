"""S6: fulfillment optimization finds the source; the lamp waits in Backorder Hold until there is stock."""

from iom_core import scenarios
from iom_core.testing import World

world = World.for_scenario(scenarios.BIGCOMMERCE_DOM_FNO)
world.stock("Seattle", {"CHAIR": 10})
order = world.receive({"CHAIR": 2, "LAMP": 1})
world.run_until_quiet()
for line in world.order(order).lines:
    print(f"{line.product}: {line.status.state} / {line.status.reason}")

world.stock("Chicago", {"LAMP": 5})
world.run_backorder_job()
world.run_until_quiet()
print(world.timeline(order))
