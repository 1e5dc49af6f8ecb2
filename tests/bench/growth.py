"""The rows of logs that grow: what costs more on a large log than on a small one, and the targets that say "of any size"."""
from machine import Measure, latency
from rows import Row, add_rows, consume, drain_into, recover

GB = 10 ** 9
SMALL = "10 MB"
SIZES = {SMALL: GB // 100, "1 GB": GB, "10 GB": 10 * GB}
SHORT, MIXED = 4096, 1 << 20   # the longest lines
NOT_IN_LOG = 10 ** 9           # the number of an event that no log has
SAME = 1.25                    # so many times as long may differ by the weather


def log(m, title, line_max=SHORT):
    """A bus with a topic "log" of this size: the small one stays, of the others there is one at a time."""
    name, size = f"grown.{title}.{line_max}", SIZES[title] // m.count(1, 200)
    if name not in m.made and title != SMALL:
        for other in [other for other in m.made if other.startswith("grown.") and SMALL not in other]:
            m.drop(other)
        m.room(size)
    return m.once(name, lambda path: m.client("grow", size, line_max, "file:" + path, "log"))


def beside_small(work):
    """The same on the small log and on the large one."""
    def made(title):
        def row(m):
            small, large = log(m, SMALL), log(m, title)
            return lambda: work(m, small), lambda: work(m, large)
        return row
    return made


def publish(m, bus):
    return m.client("publish", 1, m.count(1000, 30), "file:" + bus, "log")


def open_last(m, bus):
    return latency(m.client("open", m.count(1000, 10), "file:" + bus, "log"))


def tail(m, bus):
    return latency(m.floor("spawn", m.count(100, 5), m.evbus, "tail", "-n", 10, "-b", bus, "-t", "log"))


def consume_last(m, bus):
    n = m.count(2000, 20)
    return consume(m, bus, n, "-o", f"-{n}", "--coprocess", "--", m.tool("client"), "answer")


def drain_new(m, bus, rows, *options):
    """Rows whose events are not in the log yet."""
    path, events = m.new("app.db"), m.new("events")
    m.make_events(events, rows, NOT_IN_LOG * m.number)
    add_rows(m, path, events)
    return drain_into(m, bus, path, rows, *options)


def drain(title):
    def row(m):
        small, large, rows = log(m, SMALL), log(m, title), m.count(5000, 50)
        for bus in small, large:   # for once, the keys of all that is in the log are read
            drain_new(m, bus, 1, "--lease", "1h")
        return lambda: drain_new(m, small, rows), lambda: drain_new(m, large, rows)
    return row


def seek(way, warmth, line_max):
    def made(title):
        def row(m):
            bus, n = log(m, title, line_max), m.count(200, 10)
            return None, lambda: latency(m.client("seek", n, way, warmth, "file:" + bus, "log", more="reads"))
        return row
    return made


def recovery(title):
    def row(m):
        bus = log(m, title)
        return None, lambda: recover(m, bus)
    return row


def memory(title):
    def row(m):
        bus = log(m, title)

        def evbus():
            commands = (["verify", "-q"], ["replay", "-q", "-t", "log"], ["tail", "-t", "log", "-n", "1000"])
            most, command = max((m.floor("spawn", 1, m.evbus, *command, "-b", bus, more="KiB").more["KiB"] / 1024, command[0])
                                for command in commands)
            return Measure(most, most=command)
        return None, evbus
    return row


def rows_of(title):
    def row(mark, name, unit, make, **rest):
        return Row(mark, f"{title}: {name}", unit, make(title), **rest)

    def seeks(line_max, name, also=None, **limits):
        return [row("P8", f"open at {way}{name}, {warmth}", "µs", seek(way, warmth, line_max), less=True, limit=limit, also=also)
                for way in ("offset", "time") for warmth, limit in limits.items()]

    short = seeks(SHORT, "", ("reads", "<=", 20), warm=50, cold=1500)
    mixed = seeks(MIXED, " of mixed lines", warm=1000, cold=100000)
    if title == SMALL:
        return short + mixed
    return short + [
        row("grow", f"publish one at a time / at {SMALL}", "/s", beside_small(publish), target=1 / SAME),
        row("grow", f"open, take the last record / at {SMALL}", "µs", beside_small(open_last), less=True, target=SAME),
        row("grow", f"tail -n 10 / at {SMALL}", "µs", beside_small(tail), less=True, target=SAME),
        row("grow", f"consume the last / at {SMALL}", "/s", beside_small(consume_last), target=1 / SAME),
        row("grow", f"drain / at {SMALL}", "/s", drain, target=1 / SAME),
        row("P14", "publish without a control page", "ms", recovery, less=True, limit=50),
        row("P14", "resident memory", "MiB", memory, less=True, limit=64, rounds=1),
    ] + mixed


ROWS = [row for title in SIZES for row in rows_of(title)]
