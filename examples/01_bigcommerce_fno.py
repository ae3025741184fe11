"""S1: BigCommerce sells, F&O ships and accounts; the second order goes to the German company."""

from iom_core import scenarios
from iom_core.testing import World

world = World.for_scenario(scenarios.BIGCOMMERCE_FNO_FNO)
order = world.receive({"CHAIR": 2, "LAMP": 1})
german = world.receive({"CHAIR": 1}, country="DE", currency="EUR")
world.run_until_quiet()

print(world.timeline(order))
print(f"BigCommerce was told: {', '.join(world.channel.told['101'])}")
print(f"{german} belongs to company {world.order(german).company}")
