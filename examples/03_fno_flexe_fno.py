"""S3: the order is entered in F&O, Flexe ships it, and F&O hears its status and invoices it."""

from iom_core import scenarios
from iom_core.testing import World

world = World.for_scenario(scenarios.FNO_FLEXE_FNO)
order = world.receive({"CHAIR": 2})
world.run_until_quiet()

print(world.timeline(order))
print(f"F&O was told: {', '.join(world.erp.told['101'])}")
