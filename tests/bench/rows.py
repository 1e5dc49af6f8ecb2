"""The rows of one log: the targets P1 to P14. A row's function gives (floor, evbus), each of which measures once."""
import os, shutil

from machine import Measure, latency, per_second

LINE = 420   # bytes, about what a stored line of the events has
MB = 1e-6


class Row:
    """target: of the ratio to the floor; limit: of the figure itself; also: (what is told beside it, ">=" or "<=", bound).
    was: the ratio to the floor that was reached, where the target is shown to be out of reach (README.md)."""

    def __init__(self, mark, name, unit, make, target=None, less=False, limit=None, scale=1.0, also=None, rounds=None, was=None):
        self.mark, self.name, self.unit, self.make = mark, name, unit, make
        self.target, self.less, self.limit, self.scale = target, less, limit, scale
        self.also, self.rounds, self.was = also, rounds, was


def one_at_a_time(m):
    n = m.count(3000, 100)
    return (lambda: m.floor("append", n, LINE, m.new("raw")),
            lambda: m.client("publish", 1, n, "file:" + m.new("bus"), "t"))


def by_many(many, m):
    n = m.count(1500, 20)
    return m.client("publish", many, n, "file:" + m.new("bus"), "t", more="events a sync")


def processes(many):
    return lambda m: (lambda: by_many(1, m), lambda: by_many(many, m))


def raw_group(many):
    return lambda m: (lambda: m.floor("group", many, m.count(1500, 20), LINE, m.new("raw")), lambda: by_many(many, m))


def blocks(m, size):
    return m.floor("blocks", size, m.new("raw"))


def publish_file(through_pipe):
    def row(m):
        events, size, n = m.events(), os.path.getsize(m.segment()), m.count(1000000, 20000)

        def evbus():
            command = [m.evbus, "publish", "-b", m.new("bus"), "-t", "log"]
            seconds = m.pipe(*command, stdin=events) if through_pipe else m.pipe(*command, events)
            return per_second(size, seconds, **{"events/s": n / seconds})
        return lambda: blocks(m, size), evbus
    return row


def publish_library(m):
    size, n = os.path.getsize(m.segment()), m.count(1000000, 20000)

    def evbus():
        rate = m.client("stream", n, "file:" + m.new("bus"), "log").value
        return per_second(size, n / rate, **{"events/s": rate})
    return lambda: blocks(m, size), evbus


def over_log(*command):
    """A command that reads the whole log, beside cat of it, both into a pipe: bytes of the log a second."""
    def row(m):
        segment, log, n = m.segment(), m.log(), m.count(1000000, 20000)
        size = os.path.getsize(segment)

        def evbus():
            seconds = m.pipe(m.evbus, command[0], "-q", "-b", log, "-t", "log", *command[1:])
            return per_second(size, seconds, **{"records/s": n / seconds})
        return lambda: per_second(size, m.pipe("cat", segment)), evbus
    return row


def read_library(m):
    log = m.log()
    return None, lambda: m.client("read", "file:" + log, "log")


def verify(m):
    log, segment = m.log(), m.segment()

    def evbus():
        return per_second(os.path.getsize(segment), m.pipe(m.evbus, "verify", "-q", "-b", log))
    return lambda: m.floor("crc", segment), evbus


def wake(m):
    n = m.count(500, 20)

    def evbus():
        bus = m.new("bus")
        return latency(m.client("wake", n, "file:" + bus, "t", m.evbus, "tail", "-f", "-q", "-b", bus, "-t", "t"))
    return lambda: latency(m.floor("wake", n, LINE, m.new("raw"))), evbus


def start(m):
    n = m.count(200, 10)
    return lambda: latency(m.floor("spawn", n, "/bin/true")), lambda: latency(m.floor("spawn", n, m.evbus, "version"))


def one_shot(m):
    n, event = m.count(200, 10), m.events(1)

    def floor():
        return latency(m.floor("spawn", n, m.tool("floor"), "once", m.new("raw"), "x" * LINE + "\n"))

    def evbus():
        return latency(m.floor("spawn", n, m.evbus, "publish", "-q", "-b", m.new("bus"), "-t", "t", event))
    return floor, evbus


def add_rows(m, path, events):
    m.run(m.evbus, "outbox-init", "-q", "--outbox", "sqlite:" + path)
    m.run(m.evbus, "outbox-add", "-q", "--outbox", "sqlite:" + path, "-t", "log", events)


def outbox(m, rows):
    """A database with so many rows to publish, the same for each round."""
    copy = m.new("app.db")
    shutil.copy(m.once(f"app.db.{rows}", lambda path: add_rows(m, path, m.events(rows))), copy)
    return copy


def drain_into(m, bus, path, rows, *options):
    return per_second(rows, m.timed(m.evbus, "outbox-drain", "-q", "--outbox", "sqlite:" + path, "-b", bus, *options))


def drain(m):
    rows = m.count(100000, 1000)

    def floor():
        path = m.new("raw.db")
        m.run(m.tool("floor_sqlite"), "make", rows, path)
        return m.measure("floor_sqlite", "drain", 500, path, m.new("raw"))
    return floor, lambda: drain_into(m, m.new("bus"), outbox(m, rows), rows)


def consume(m, bus, n, *options):
    """Handles n records of a group that is new."""
    store = m.new("state.db")
    return per_second(n, m.timed(m.evbus, "consume", "-q", "-b", bus, "--store", "sqlite:" + store, "-t", "log", "-g", "g",
                                 "--max", n, *options))


def coprocess(m):
    log, n = m.log(), m.count(300000, 10000)
    return None, lambda: consume(m, log, n, "--inbox", "--coprocess", "--", m.tool("client"), "answer")


def command_each(m, *options):
    log, n = m.log(), m.count(1000, 20)
    return lambda: m.floor("spawn", n, "/bin/true"), lambda: consume(m, log, n, *options, "--", "/bin/true")


def thousands(m, *command):
    """Events a second of what is done with a thousand at a time."""
    count = m.count(2000, 20)
    return Measure(1000 * m.measure("memory", command[0], count, *command[1:]).value)


def in_memory(floor):
    def row(m):
        def evbus():
            measure = thousands(m, "through", "memory:", "t")
            if floor == "copy":
                measure.more["validated alone"] = thousands(m, "scan").value
            return measure
        return lambda: thousands(m, floor), evbus
    return row


def in_memory_each(m):
    def each(*command):
        took = m.measure("memory", command[0], m.count(100000, 2000), *command[1:])
        return Measure(took.p50 / 10)
    return lambda: each("store"), lambda: each("publish", "memory:", "t")


def memory(m):
    """The most memory that one of the commands takes."""
    log, events = m.log(), m.events()
    n = m.count(100000, 1000)

    def peak(*command, stdin=None):
        with open(stdin or os.devnull, "rb") as file:
            used = m.floor("spawn", 1, m.evbus, *command, stdin=file, more="KiB").more["KiB"] / 1024
        return used, " ".join([command[0], *(word for word in command if word in ("--deep", "--idempotent"))])

    def evbus():
        group = ["-t", "log", "-g", "g", "--store", "sqlite:" + m.new("state.db"), "--max", n, "--inbox", "--coprocess"]
        most, command = max([
            peak("replay", "-q", "-t", "log", "-b", log), peak("verify", "-q", "-b", log),
            peak("verify", "-q", "--deep", "-b", log), peak("tail", "-t", "log", "-n", "100000", "-b", log),
            peak("publish", "-q", "-t", "t", "-b", m.new("bus"), events),
            peak("publish", "-q", "-t", "t", "-b", m.new("bus"), stdin=events),
            peak("publish", "-q", "-t", "t", "-b", m.new("bus"), "--idempotent", m.events(n)),
            peak("consume", "-q", "-b", log, *group, "--", m.tool("client"), "answer"),
            peak("outbox-drain", "-q", "-b", m.new("bus"), "--outbox", "sqlite:" + outbox(m, n))])
        return Measure(most, most=command)
    return None, evbus


def recover(m, bus):
    """A publish after the control page is gone: what there is to do after a power cut, and more."""
    os.unlink(os.path.join(bus, "log", "partition=0.lock"))
    took = latency(m.floor("spawn", 1, m.evbus, "publish", "-q", "-b", bus, "-t", "log", m.events(1)))
    return Measure(took.value / 1000)


def recovery(m):
    def make(path):
        m.run(m.evbus, "publish", "-q", "-b", path, "-t", "log", m.events())
    bus = m.once("bus.recovered", make)
    return None, lambda: recover(m, bus)


ROWS = [
    Row("P1", "one durable publish at a time / append + fdatasync", "/s", one_at_a_time, 0.9),
    Row("P2", "8 processes / one", "/s", processes(8), 3, also=("events a sync", ">=", 3)),
    Row("P2", "64 processes / one", "/s", processes(64), 8, also=("events a sync", ">=", 25)),
    Row("P2", "8 processes / raw group commit", "/s", raw_group(8)),
    Row("P2", "64 processes / raw group commit", "/s", raw_group(64)),
    Row("P3", "publish FILE / write + fdatasync each MiB", "MB/s", publish_file(False), 0.65, scale=MB),
    Row("P3", "through the library / the same", "MB/s", publish_library, scale=MB),
    Row("P4", "publish from a pipe / the same", "MB/s", publish_file(True), 0.4, scale=MB),
    Row("P5", "replay / cat", "MB/s", over_log("replay"), 0.6, scale=MB),
    Row("P5", "replay --format stored / cat", "MB/s", over_log("replay", "--format", "stored"), 1.0, scale=MB),
    Row("P5", "read through the library", "/s", read_library, limit=5e6),
    Row("P6", "replay --type, 1 % match / cat", "MB/s", over_log("replay", "--type", "order.cancelled"), limit=1e9, scale=MB),
    Row("P7", "verify / newline + CRC in memory", "MB/s", verify, 0.7, scale=MB),
    Row("P9", "publish to tail -f / append, fdatasync, wake", "µs", wake, 1.1, less=True),
    Row("P10", "evbus version / true", "µs", start, 1.25, less=True),
    Row("P10", "publish one event / static append + fdatasync", "µs", one_shot, 1.5, less=True),
    Row("P11", "outbox-drain / raw SQLite batches", "/s", drain, limit=1e5),
    Row("P12", "consume --coprocess --inbox", "/s", coprocess, limit=2e5),
    Row("P12", "consume --commit-every 20 -- true / spawn + wait", "/s", lambda m: command_each(m, "--commit-every", "20"), 0.8),
    Row("P12", "consume -- true / spawn + wait", "/s", command_each),
    Row("P13", "memory: published and read / validated, copied twice", "/s", in_memory("copy"), limit=1e7, was=0.35),
    Row("P13", "memory: the same / timed and summed twice as well", "/s", in_memory("line")),
    Row("P13", "memory: publish one at a time / validated, copied", "ns", in_memory_each, less=True, limit=0.2, scale=1e3, was=2.6),
    Row("P14", "resident memory", "MiB", memory, less=True, limit=64, rounds=1),
    Row("P14", "publish without a control page", "ms", recovery, less=True, limit=50),
]
