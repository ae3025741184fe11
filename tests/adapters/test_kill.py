"""The demo killed at random moments and started again: the same orders, the same states, nothing twice anywhere."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from iom_adapters.stage import Stage
from iom_core import scenarios

ORDERS = 30
KILLS = int(os.environ.get("IOM_KILLS", "6"))
SCENARIOS = os.environ.get("IOM_KILL_SCENARIOS", "S1").split(",")
"""More of them, more kills (``IOM_KILLS``) and other moments (``IOM_KILL_SEED``) are for long runs."""


def demo(scenario: str, store: str) -> subprocess.Popen[str]:
    """Start the demo in a process of its own."""
    words = [sys.executable, "-m", "iom_adapters.cli", "demo", scenario, "--orders", str(ORDERS), "--store", store]
    words.append("--json")
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_at_random_moments_it_ends_the_same(scenario: str, tmp_path: Path) -> None:
    """Each kill is a ``kill -9``; the last run goes to the end and finds nothing twice."""
    rng = random.Random(int(os.environ.get("IOM_KILL_SEED", "5")))
    store = f"sqlite:///{tmp_path / 'orders.db'}"
    killed = 0
    for _ in range(KILLS):
        process = demo(scenario, store)
        time.sleep(rng.uniform(0.8, 4.0))
        if process.poll() is None:
            killed += 1
            process.send_signal(signal.SIGKILL)
        process.communicate()

    last = demo(scenario, store)
    printed, _ = last.communicate(timeout=240)
    result = json.loads(printed)

    assert killed > 0
    assert (last.returncode, result["problems"]) == (0, [])
    assert (result["orders"], result["completed"], result["errors"]) == (ORDERS, ORDERS, 0)

    if scenario != "S1":
        return  # the demo itself has compared every order with what every system holds of it
    stage = Stage.of(scenarios.BIGCOMMERCE_FNO_FNO, tmp_path / "orders.db-twins")
    shop = stage.shop
    assert shop is not None
    try:
        entered = [str(order["CustomersOrderReference"]) for order in stage.erp.orders()]
        assert sorted(entered) == sorted({each["order_id"] for each in result["orders_detail"]})
        assert len(shop.orders()) == ORDERS
        assert len(stage.erp.invoices()) == ORDERS
        assert len(stage.erp.slips()) == ORDERS
        for number in shop.orders():
            assert shop.status_history(number)[1:] == [2, 10]
    finally:
        stage.close()
