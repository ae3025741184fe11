"""The command line as a user meets it: in a process of its own, with exit codes, JSON and one-line errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def iom(*words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    return subprocess.run(
        [sys.executable, "-m", "iom_adapters.cli", *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_the_demo_prints_the_documented_json(tmp_path: Path) -> None:
    """Every field of the documented document is there, and every order is at its end."""
    ran = iom("demo", "--orders", "6", "--seed", "3", "--json")
    result = json.loads(ran.stdout)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert (result["scenario"], result["orders"], result["completed"]) == ("bigcommerce-fno-fno", 6, 6)
    assert (result["held"], result["errors"], result["problems"]) == (0, 0, [])
    assert result["http_calls"]["bigcommerce"] > 0
    assert result["http_calls"]["fno"] > 0
    for detail in result["orders_detail"]:
        assert (detail["state"], detail["reason"]) == ("Completed", "Fulfilled")
        assert set(detail["external_ids"]) == {"bigcommerce", "fno"}
        assert detail["ordered_total"] == detail["invoiced_total"]
        assert {"at", "event", "state", "reason"} == set(detail["timeline"][0])
        assert [each["at"] for each in detail["timeline"]] == sorted(each["at"] for each in detail["timeline"])


@pytest.mark.parametrize(
    ("scenario", "systems"),
    [
        ("S2", {"bigcommerce", "fno", "flexe"}),
        ("fno-flexe-fno", {"dataverse", "flexe"}),
        ("S4", {"dataverse"}),
        ("S5", {"dataverse", "flexe", "sap"}),
        ("S6", {"bigcommerce", "fno", "inventory-visibility"}),
    ],
)
def test_every_scenario_runs_over_http(scenario: str, systems: set[str]) -> None:
    """Orders that F&O created come over dual-write: then only Dataverse is called for them."""
    result = json.loads(iom("demo", scenario, "--orders", "6", "--json").stdout)

    assert (result["completed"], result["errors"], result["problems"]) == (6, 0, [])
    assert set(result["http_calls"]) == systems


def test_a_store_is_kept_and_can_be_looked_into(tmp_path: Path) -> None:
    """The demo's store lists its errors and shows its orders; running it again changes nothing."""
    url = f"sqlite:///{tmp_path / 'orders.db'}"
    first = json.loads(iom("demo", "--orders", "3", "--store", url, "--json").stdout)
    again = json.loads(iom("demo", "--orders", "3", "--store", url, "--json").stdout)
    shown = iom("show", first["orders_detail"][0]["order_id"], url)

    assert first["orders_detail"] == again["orders_detail"]
    assert "Completed / Fulfilled" in shown.stdout
    assert json.loads(iom("errors", url, "--json").stdout) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("demo", "S9"), "there is no scenario 'S9'"),
        (("demo", "--orders", "-1"), "must not be negative"),
        (("demo", "--orders", "many"), "many"),
        (("demo", "--store", "mongodb://x"), "sqlite:///"),
        (("show", "BC-1", "sqlite:////no/such/folder/x.db"), "there is no store"),
        (("check", "/no/such/flow.json"), "can't be read"),
        (("bench", "--rounds", "0"), "at least 1"),
        (("nonsense",), "nonsense"),
    ],
)
def test_wrong_use_ends_with_a_code_and_says_what_to_do(words: tuple[str, ...], says: str) -> None:
    """No traceback: one message, on standard error or beside the usage, and a code that isn't zero."""
    ran = iom(*words)

    assert ran.returncode != 0
    assert says in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stdout + ran.stderr


def test_a_flow_is_checked_with_precise_messages(tmp_path: Path) -> None:
    """A drawn flow passes; a changed one is refused with a path to what is wrong."""
    flow = json.loads(iom("draw", "S1", "--json").stdout)
    good = iom("check", "-", stdin=json.dumps(flow))
    flow["steps"][4]["action"] = "Send order to nowhere"
    bad = json.loads(iom("check", "-", "--json", stdin=json.dumps(flow)).stdout)
    flow["steps"][0]["colour"] = "red"
    unknown = iom("check", "-", stdin=json.dumps(flow))

    assert good.returncode == 0
    assert [each["where"] for each in bad["problems"]] == ["$.steps[4].action"]
    assert unknown.returncode == 1
    assert "colour" in unknown.stdout


@pytest.mark.parametrize("command", ["demo", "bench", "check", "draw", "errors", "show"])
def test_every_command_has_help_and_json(command: str) -> None:
    """``--help`` tells of ``--json``."""
    ran = iom(command, "--help")

    assert ran.returncode == 0
    assert "--json" in ran.stdout
