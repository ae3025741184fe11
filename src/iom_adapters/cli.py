"""The command line, `iom`: the demo, the benchmarks, flows to check, and a look into a store."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from iom_core import codec, scenarios
from iom_core.errors import Fault
from iom_core.flow import Flow, problems
from iom_core.scenarios import Scenario
from iom_core.values import OrderId

app = App(
    name="iom",
    help="Order orchestration: orders from channels, through fulfillment, into the books.",
    version_flags=["--version"],
)

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print one JSON document instead of text.")]
Store = Annotated[str, Parameter(help="Where orders are kept, for example sqlite:///orders.db.")]

OK: Final = 0
FAILED: Final = 1
WRONG_USE: Final = 2

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


class _WrongUse(Exception):
    """Something on the command line can't be used; the message says what and what to do."""


def _scenario(name: str) -> Scenario:
    try:
        return scenarios.named(name)
    except KeyError as unknown:
        raise _WrongUse(str(unknown.args[0])) from None


@app.command
def demo(
    scenario: str = "S1",
    *,
    orders: int = 25,
    seed: int = 1,
    store: Store = "",
    halves: bool = False,
    json: Json = False,
) -> int:
    """Run orders through a documented scenario to its end, against stand-ins of the outside systems.

    The systems of the scenario are started as HTTP servers on this machine. With --store the orders, and the
    books of the stand-ins beside them, survive a killed run: start it again to go on.

    Parameters
    ----------
    scenario
        S1 to S6, or the scenario's name.
    orders
        How many orders the shop has in the end.
    seed
        Which orders are generated.
    halves
        Let the ERP deliver every third order in two parts.
    """
    from iom_adapters import demo as run_demo  # starting up must not load what --help doesn't need

    chosen = _scenario(scenario)
    if orders < 0:
        raise _WrongUse(f"--orders must not be negative, {orders} is")
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[states]}"),
        TimeElapsedColumn(),
        console=err,
        transient=True,
        disable=json or not err.is_terminal,
    ) as bar:
        task = bar.add_task(f"{chosen.id} {chosen.name}", total=orders, states="")

        def show(progress: run_demo.Progress) -> None:
            states = ", ".join(f"{count} {state}" for state, count in sorted(progress.by_state.items()))
            bar.update(task, completed=progress.completed, states=states)

        try:
            result = run_demo.run(chosen, orders, seed, store, show, halves)
        except ValueError as wrong:
            raise _WrongUse(str(wrong)) from None
    if json:
        _print_json(result.as_json())
    else:
        _print_demo(result)
    return FAILED if result.problems else OK


def _print_demo(result: Any) -> None:
    for detail in result.details:
        numbers = ", ".join(f"{system} {number}" for system, number in detail["external_ids"].items())
        money = f"{detail['ordered_total']} {detail['currency']} ordered, {detail['invoiced_total']} invoiced"
        out.print(f"[bold]{detail['order_id']}[/]  {numbers}  {money}")
        began = detail["timeline"][0]["at"]
        for moment in detail["timeline"]:
            after = _seconds(began, moment["at"])
            out.print(f"    +{after:6.2f} s  {moment['event']:<44} {moment['state']} / {moment['reason']}")
    table = Table(title=f"{result.scenario}: {result.orders} orders in {result.seconds:.1f} s", title_justify="left")
    for column in ("", "count", "per order"):
        table.add_column(column, justify="left" if not column else "right")
    for name, count in (("completed", result.completed), ("held", result.held), ("errors", result.errors)):
        table.add_row(name, str(count), "")
    for system, calls in result.http_calls.items():
        table.add_row(f"HTTP calls to {system}", str(calls), f"{calls / max(result.orders, 1):.1f}")
    table.add_row("orders per second", f"{result.orders / max(result.seconds, 0.001):.1f}", "")
    out.print(table)
    _print_money(result)
    for problem in result.problems[:20]:
        out.print(f"[red]✗[/] {problem}")
    if result.problems:
        out.print(f"[red]{len(result.problems)} thing(s) did not end as the scenario documents.[/]")
    else:
        out.print("[green]Every order reached the end its scenario documents; amounts agree to the cent.[/]")


def _print_money(result: Any) -> None:
    from collections import defaultdict
    from decimal import Decimal

    sums: dict[str, list[Decimal]] = defaultdict(lambda: [Decimal(0), Decimal(0)])
    for detail in result.details:
        sums[detail["currency"]][0] += Decimal(detail["ordered_total"])
        sums[detail["currency"]][1] += Decimal(detail["invoiced_total"])
    table = Table("currency", "ordered", "invoiced", "difference")
    for column in table.columns[1:]:
        column.justify = "right"
    for currency, (ordered, invoiced) in sorted(sums.items()):
        table.add_row(currency, str(ordered), str(invoiced), str(ordered - invoiced))
    if sums:
        out.print(table)


def _seconds(began: str, at: str) -> float:
    from datetime import datetime

    return (datetime.fromisoformat(at) - datetime.fromisoformat(began)).total_seconds()


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


@app.command
def bench(
    *,
    lines: int = 2,
    orders: int = 300,
    rounds: int = 5,
    json: Json = False,
) -> int:
    """Measure the bare decision path, S1 in memory, and S1 through SQLite, side by side, and where the time goes.

    Parameters
    ----------
    lines
        Lines per order.
    orders
        Orders per round for the two runs of S1.
    rounds
        Rounds; medians are reported.
    """
    from iom_adapters import benchmarks

    if min(lines, orders, rounds) < 1:
        raise _WrongUse("--lines, --orders and --rounds must be at least 1")
    results = benchmarks.core(lines, orders, rounds)
    if json:
        _print_json([each.as_json() for each in results])
        return OK
    for each in results:
        out.print(f"[bold]{each.name}[/]: {each.per_second:,.0f} orders/s (aim {each.aim:,}), {each.spread}")
        for part, share in each.profile:
            out.print(f"    {share:5.1%}  {part}")
    return OK


@app.command
def check(flow: Annotated[Path, Parameter(allow_leading_hyphen=True)], *, json: Json = False) -> int:
    """Check a flow written as JSON, as publishing would, against the providers and policies of the six scenarios.

    Parameters
    ----------
    flow
        The file; ``-`` reads standard input.
    """
    try:
        text = sys.stdin.read() if str(flow) == "-" else flow.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as broken:
        raise _WrongUse(f"{flow} can't be read: {broken}") from None
    try:
        found = [
            {"what": each.what, "where": each.where, "code": each.code}
            for each in problems(codec.from_json(text, Flow), scenarios.CATALOG)
        ]
    except ValueError as broken:
        found = [{"what": str(broken), "where": str(broken).partition("@ ")[2] or "$", "code": "unreadable"}]
    if json:
        _print_json({"ok": not found, "problems": found})
    else:
        for each in found:
            out.print(f"[red]✗[/] {each['where']}: {each['what']}")
        if not found:
            out.print("[green]The flow can be published.[/]")
    return FAILED if found else OK


@app.command
def draw(scenario: str = "S1", *, json: Json = False) -> int:
    """Print a scenario's flow as a Mermaid flowchart, or with --json as a flow to start your own from.

    Parameters
    ----------
    scenario
        S1 to S6, or the scenario's name.
    """
    flow = _scenario(scenario).flow
    sys.stdout.write((codec.to_json(flow) if json else flow.mermaid()) + "\n")
    return OK


@app.command
def errors(store: Store, *, kind: str = "", json: Json = False) -> int:
    """List the active errors of a store: provider inbound, provider action, orchestration step, policy.

    Parameters
    ----------
    kind
        Only errors of this kind.
    """
    with _opened(store) as opened:
        found = opened.errors(kind or None)
    if json:
        _print_json([codec.plain(each) for each in found])
        return OK
    for each in found:
        about = f"{each.order_id} " if each.order_id else ""
        out.print(f"[bold]{each.kind}[/] {about}{each.system}: {each.what} [dim]({each.where})[/]", markup=True)
    out.print(f"{len(found)} active error(s)")
    return OK


@app.command
def show(order_id: str, store: Store, *, json: Json = False) -> int:
    """Show one order of a store: its status, timeline, shipments, invoices, steps and errors."""
    with _opened(store) as opened:
        order = opened.load(OrderId(order_id))
        found = [each for each in opened.errors() if each.order_id == order_id]
    if order is None:
        raise _WrongUse(f"the store has no order {order_id!r}")
    if json:
        sys.stdout.write(codec.to_json(order) + "\n")
        return OK
    out.print(f"[bold]{order.id}[/] {order.status.state} / {order.status.reason}, {order.total}")
    for moment in order.timeline:
        out.print(f"    {moment.at:%Y-%m-%d %H:%M:%S}  {moment.event:<44} {moment.state} / {moment.reason}")
    for shipment in order.shipments:
        out.print(f"    shipment {shipment.id} by {shipment.carrier or 'unknown'} {shipment.tracking_number}")
    for invoice in order.invoices:
        out.print(f"    invoice {invoice.number} over {invoice.total}")
    for parked in order.parked:
        out.print(f"    [yellow]parked[/] {parked.id}: {parked.why}")
    for each in found:
        out.print(f"    [red]error[/] {each.kind}: {each.what}")
    return OK


def _opened(url: str) -> Any:
    from contextlib import closing

    from iom_adapters.store.sql import SqlStore

    path = url.removeprefix("sqlite:///")
    if url.startswith("sqlite:///") and not Path(path).exists():
        raise _WrongUse(f"there is no store at {path}")
    store = SqlStore.open(url)
    return closing(store)


def main() -> None:
    """Run the command line; wrong use ends with code 2 and one line that says what to do."""
    try:
        code = app()
    except _WrongUse as wrong:
        err.print(f"[red]iom:[/] {wrong}")
        code = WRONG_USE
    except Fault as fault:
        err.print(f"[red]iom:[/] {fault}")
        code = FAILED
    except KeyboardInterrupt:
        code = 130
    sys.exit(code if isinstance(code, int) else OK)


if __name__ == "__main__":
    main()
