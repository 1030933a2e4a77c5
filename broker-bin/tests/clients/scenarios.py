"""What applications do with each client, and what must come of it: the cells that passed against RocketMQ 5.3.3.

The drivers check everything themselves (java/Scenarios.java, go/scenarios.go) and write one line for each scenario. A
cell that is expected to fail and passes all the same is wrong, too: what is expected is out of date.
"""
import atexit
import dataclasses

from judge import read_lines

OK, FAILS, NOT_OFFERED = "ok", "failed", "not offered"

# Scenario -> what java4, java5 and go make of it; who is not named passes.
EXPECTED = {
    "send-sync": {},
    "send-async": {},
    "send-oneway": {},
    "send-batch": {},
    "send-selector": {},
    "large": {},
    "body": {},
    "delay-level": {},
    "deliver-at": {"java4": NOT_OFFERED},
    "transaction": {},
    # 5.3.3 gives up as soon as its send is acknowledged, with any broker.
    "request-reply": {"java5": FAILS},
    "request-reply-async": {"go": NOT_OFFERED},
    "push": {},
    "push-orderly": {},
    "retry": {},
    "dlq": {},
    "dlq-orderly": {},
    "pull": {},
    "lite-pull": {},
    "lite-pull-seek": {"go": NOT_OFFERED},
    "broadcast": {},
    "filter-tag": {},
    "filter-sql-off": {},
    "filter-sql": {},
    "trace": {},
    "query": {"go": NOT_OFFERED},
    "drain": {},
    "admin": {"java4": NOT_OFFERED, "java5": NOT_OFFERED},
}

# Played against a broker of their own, which has this switched on.
SWITCHED_ON = {"filter-sql": ["--enable-property-filter=true"]}

# Left out of a quick run: they wait long, and the chain meets the same.
SLOW = ("retry", "dlq", "dlq-orderly", "trace", "drain", "broadcast", "lite-pull-seek", "filter-sql-off", "admin")
SLOW_IN_GO = ("request-reply",)

SECONDS = 300


@dataclasses.dataclass
class Played:
    """One cell."""

    expected: str
    result: str
    ms: int = 0
    facts: dict = dataclasses.field(default_factory=dict)

    @property
    def ok(self):
        return self.result == self.expected

    def __str__(self):
        shown = self.result if self.result != OK else f"ok {self.ms / 1000:.0f} s"
        return shown if self.ok else f"{shown.upper()}, expected {self.expected}"


def names(client, quick):
    """The scenarios of a run."""
    left_out = SLOW + (SLOW_IN_GO if client.name == "go" else ()) if quick else ()
    return [name for name in EXPECTED if name not in left_out]


def play(drivers, client, label, server, run_id, work, wanted, parallel):
    """Plays them with one client; returns name -> line, and what went wrong with the driver itself."""
    out = work / f"{label}-{client.name}.played"
    process = drivers.start(client, label, "scenarios", server.namesrv, server.broker(), run_id,
                            ",".join(wanted), parallel, out)
    why = drivers.finish(process, SECONDS)
    return {line["scenario"]: line for line in read_lines(out)}, why


def judge(client, wanted, lines):
    """The cells of one client."""
    cells = {}
    for name in wanted:
        line = lines.get(name, {"result": "no word of it"})
        should = EXPECTED[name].get(client.name, OK)
        cells[name] = Played(should, line["result"], line.get("ms", 0), line.get("facts", {}))
    return cells


def stage(run):
    """Plays them all with every client that can, and fills `run.played`."""
    able = [c for c in run.clients if c.plays]
    # With the original nothing is switched on.
    switched = SWITCHED_ON if run.server.name != "original" else {}
    left_out = set(SWITCHED_ON) - set(switched)
    wanted = {c.name: [name for name in names(c, run.options.quick) if name not in left_out] for c in able}
    run.say(f"scenarios: {', '.join(f'{c.name} plays {len(wanted[c.name])}' for c in able)}")
    others = {}
    for name, more in switched.items():
        others[name] = run.server.another(run.work / name, more)
        atexit.register(others[name].stop)
        others[name].start()

    def one(client):
        mine = wanted[client.name]
        parts = [("scenarios", run.server, [name for name in mine if name not in others])]
        parts += [(name, server, [name]) for name, server in others.items() if name in mine]
        lines = {}

        def part(label, server, some):
            found, why = play(run.drivers, client, label, server, run.id, run.work, some, run.options.scenes)
            lines.update(found)
            if why:
                run.fail(f"scenarios: {why}")

        for label, server, some in parts[1:]:
            part(label, server, some)
        part(*parts[0])
        run.played[client.name] = judge(client, mine, lines)

    try:
        run.side_by_side(one, able)
    finally:
        for server in others.values():
            server.stop()
    run.played = {c.name: run.played[c.name] for c in able}
    for name, cells in run.played.items():
        for scenario, cell in cells.items():
            if not cell.ok:
                run.fail(f"scenarios: {scenario} with {name}: {cell}: {cell.facts.get('why', '')}")
