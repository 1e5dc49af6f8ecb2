"""Other systems on the same events, each beside evbus: started here on 127.0.0.1, on ports that are free, with their files
below the scratch directory."""
import os, shutil, socket, statistics, subprocess, time

from machine import Failed, Missing, end, latency, per_second
from rows import LINE, Row

PATIENCE_S = 60   # until a server answers


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def program(name):
    """Where it is; of RabbitMQ the script itself, and not the one that changes to another user."""
    found = shutil.which(name, path="/usr/lib/rabbitmq/bin:" + os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")
    if not found:
        raise Missing(f"there is no {name} (tests/deps bench installs it)")
    return found


class Servers:
    """At most one peer at a time: what waits for the next row would take its share of the processor."""

    def __init__(self):
        self.name, self.port, self.processes = None, None, []

    def start(self, m, name):
        """The port on which it listens."""
        if self.name != name:
            self.stop()
            self.port, home = free_port(), os.path.join(m.scratch, name)
            os.makedirs(home)
            self.name = name
            COMMANDS[name](self, home, self.port)
            self.wait(home)
        return self.port

    def spawn(self, home, *argv, **environment):
        with open(os.path.join(home, "output"), "ab") as out:
            self.processes.append(subprocess.Popen([str(arg) for arg in argv], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                                   cwd=home, env=os.environ | environment, start_new_session=True))

    def wait(self, home):
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.1)
            if self.processes[-1].poll() is not None:
                break
        with open(os.path.join(home, "output"), errors="replace") as out:
            raise Failed(f"{self.name} does not answer: {out.read()[-300:].strip()}")

    def stop(self):
        for process in reversed(self.processes):
            end(process)
        self.name, self.processes = None, []

    def redis(self, home, port):
        self.spawn(home, program("redis-server"), "--bind", "127.0.0.1", "--port", port, "--dir", home, "--appendonly", "yes",
                   "--appendfsync", "always", "--save", "", "--auto-aof-rewrite-percentage", "0")

    def nats(self, home, port):
        self.spawn(home, program("nats-server"), "-a", "127.0.0.1", "-p", port, "-js", "-sd", home)

    def rabbitmq(self, home, port):
        """With a name server of its own, which would stay behind otherwise."""
        names, between = free_port(), free_port()
        self.spawn(home, program("epmd"), "-address", "127.0.0.1", "-port", names)
        for name in ("empty.conf", "plugins"):
            with open(os.path.join(home, name), "w") as file:
                file.write("[].\n" if name == "plugins" else "loopback_users.guest = true\n")
        self.spawn(home, program("rabbitmq-server"), HOME=home, ERL_EPMD_PORT=str(names), RABBITMQ_DIST_PORT=str(between),
                   RABBITMQ_NODENAME="bench@localhost", RABBITMQ_NODE_IP_ADDRESS="127.0.0.1", RABBITMQ_NODE_PORT=str(port),
                   RABBITMQ_MNESIA_BASE=os.path.join(home, "data"), RABBITMQ_LOG_BASE=os.path.join(home, "log"),
                   RABBITMQ_CONFIG_FILE=os.path.join(home, "empty.conf"), RABBITMQ_CONF_ENV_FILE=os.path.join(home, "none"),
                   RABBITMQ_ENABLED_PLUGINS_FILE=os.path.join(home, "plugins"), RABBITMQ_PID_FILE=os.path.join(home, "pid"),
                   ERL_AFLAGS="-kernel inet_dist_use_interface {127,0,0,1}")


COMMANDS = {"redis": Servers.redis, "nats": Servers.nats, "rabbitmq": Servers.rabbitmq}
servers = Servers()


def peer(name):
    """What runs this work of peer.c once."""
    def work(m, what, *numbers):
        where = servers.start(m, name) if name in COMMANDS else m.new("peer.db")
        return m.measure("peer", name, what, where, *numbers)
    return work


def raw(m, what, *numbers):
    """By append and fdatasync, which is what any of them has to do."""
    if what == "wake":
        return m.floor("wake", numbers[0], LINE, m.new("raw"))
    if what == "window":
        return per_second(500, 1 / m.floor("append", numbers[0] // 500, 500 * LINE, m.new("raw")).value)
    processes, n = numbers
    if processes == 1:
        return m.floor("append", n, LINE, m.new("raw"))
    return m.floor("group", processes, n, LINE, m.new("raw"))


def line_bus(lines):
    def work(m, what, processes, n):
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "line_bus.py")
        words = m.run(script, m.new("lines"), m.events(), processes, n, lines).split()
        count, seconds, p50, p99, _ = (float(word) for word in words)
        return per_second(count, seconds, p50=p50, p99=p99)
    return work


def evbus(m, what, *numbers):
    bus = m.new("bus")
    if what == "one":
        return m.client("publish", *numbers, "file:" + bus, "t")
    if what == "wake":
        return m.client("wake", numbers[0], "file:" + bus, "t", m.evbus, "tail", "-f", "-q", "-b", bus, "-t", "t")
    n = numbers[0]
    return per_second(n, m.pipe(m.evbus, "publish", "-q", "-b", bus, "-t", "t", m.events(n)))


def one(work, processes, full):
    def row(m):
        n = m.count(full, 20)
        return lambda: work(m, "one", processes, n), lambda: evbus(m, "one", processes, n)
    return row


def window(work, full):
    """So many events by the peer as it does in a second or two, a million by evbus: both are rates of a long run."""
    def row(m):
        m.events()
        return lambda: work(m, "window", m.count(full, 2000)), lambda: evbus(m, "window", m.count(1000000, 2000))
    return row


def wake(work):
    def row(m):
        n = m.count(300, 20)
        return lambda: latency(work(m, "wake", n)), lambda: latency(evbus(m, "wake", n))
    return row


def one_shot(m):
    """One event from the shell."""
    program("redis-cli")
    n, event = m.count(100, 5), m.events(1)

    def redis():
        return latency(m.floor("spawn", n, "redis-cli", "-p", servers.start(m, "redis"), "XADD", "shell", "*", "d", "x" * 300))

    def shell():
        return latency(m.floor("spawn", n, m.evbus, "publish", "-q", "-b", m.new("bus"), "-t", "t", event))
    return redis, shell


def rows_of(title, work, window_target=None, syncs=True, window_events=None, wakes=True):
    rows = [Row("P1", f"one producer / {title}", "/s", one(work, 1, 1500)),
            Row("P2", f"8 producers / {title}", "/s", one(work, 8, 500), target=1 if syncs else None)]
    if window_events:
        rows.append(Row("P3", f"window of 500 / {title}", "/s", window(work, window_events), target=window_target))
    if wakes:
        rows.append(Row("P9", f"publish to consumer / {title}", "µs", wake(work), less=True))
    return rows


ROWS = [
    *rows_of("raw append + fdatasync", raw, syncs=False, window_events=500000),
    *rows_of("Redis, fsync always", peer("redis"), 5, window_events=100000),
    Row("P10", "one event from the shell / redis-cli", "µs", one_shot, less=True, target=0.25),
    *rows_of("NATS JetStream", peer("nats"), 3, syncs=False, window_events=100000),
    *rows_of("RabbitMQ", peer("rabbitmq"), window_events=10000),
    *rows_of("SQLite, WAL FULL", peer("sqlite"), 2, window_events=200000, wakes=False),
    *rows_of("Python line bus", line_bus(0), wakes=False),
    Row("P1", "one producer / Python line bus at 100,000 lines", "/s", one(line_bus(100000), 1, 50)),
]


def cell(measures):
    median = lambda name: statistics.median(getattr(measure, name) for measure in measures)
    if not measures:
        return ""
    times = f" ({median('p50'):.0f}/{median('p99'):.0f})" if measures[0].p50 else ""
    return (f"{median('value'):,.0f}{times}" if measures[0].value != measures[0].p50 else times.strip(" ()"))


def tell(results):
    """The same once more, a line a system: events a second, and p50/p99 in µs."""
    works = ["one producer", "8 producers", "window of 500", "publish to consumer"]
    table = {"evbus": {work: [] for work in works}}
    for result in results:
        work, _, title = result.row.name.partition(" / ")
        if work in works and not result.why:
            table.setdefault(title, {})[work] = result.floors
            table["evbus"][work] += result.runs
    if len(table) == 1:
        return
    print("\n" + f"{'':42}" + "".join(f"{work:>24}" for work in works))
    for title, cells in table.items():
        print(f"{title:42}" + "".join(f"{cell(cells.get(work, [])):>24}" for work in works))
