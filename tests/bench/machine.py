"""What the rows work with: programs that are run and timed, and files that several rows need."""
import fcntl, os, shutil, signal, subprocess, tempfile, time


class Missing(Exception):
    """Something that a row needs is not on this machine: its row is left out, and says so."""


class Failed(Exception):
    """A row that could not run."""


class Measure:
    """What one run gave: a rate a second or, where less is better, a time in µs or a size; and what is told beside it."""

    def __init__(self, value, p50=0.0, p99=0.0, **more):
        self.value, self.p50, self.p99, self.more = value, p50, p99, more


def per_second(count, seconds, **more):
    return Measure(count / seconds, **more)


def latency(measure):
    """A latency row compares medians."""
    measure.value = measure.p50
    return measure


class Scratch:
    """A new directory below dir, gone afterwards. What a killed run left there is removed: nobody holds its lock."""

    def __init__(self, dir):
        self.dir = dir

    def hold(self, path):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise
        return fd

    def __enter__(self):
        for name in os.listdir(self.dir):
            if name.startswith("evbus-bench."):
                left = os.path.join(self.dir, name)
                try:
                    os.close(self.hold(left))
                    shutil.rmtree(left)
                except OSError:
                    pass
        self.path = tempfile.mkdtemp(prefix="evbus-bench.", dir=self.dir)
        self.fd = self.hold(self.path)
        return self.path

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.fd)


def end(process, how=signal.SIGKILL):
    """Ends a process that was started as the first of a session, and all that it started."""
    try:
        os.killpg(process.pid, how)
    except ProcessLookupError:
        pass
    process.wait()


class Machine:
    def __init__(self, build, scratch, quick):
        self.build, self.scratch, self.quick = build, scratch, quick
        self.evbus = os.path.join(build, "cmd", "evbus")
        self.made, self.number, self.temporary = {}, 0, []

    def count(self, full, quick):
        return quick if self.quick else full

    def new(self, name):
        """A path that was not used before, for this measure only."""
        self.number += 1
        self.temporary.append(os.path.join(self.scratch, f"new.{self.number}.{name}"))
        return self.temporary[-1]

    def sweep(self):
        """Removes what is new, and what SQLite left beside it."""
        for path in [path + end for path in self.temporary for end in ("", "-wal", "-shm", "-journal")]:
            if os.path.isdir(path):
                shutil.rmtree(path)
            elif os.path.exists(path):
                os.unlink(path)
        self.temporary = []

    def tool(self, name):
        return os.path.join(self.build, "tests", "bench", name)

    def run(self, *argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, status=(0,)):
        """What it prints; it and all that it started are gone when this is left, in whatever way."""
        argv = [str(arg) for arg in argv]
        process = subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, cwd=self.scratch,
                                   start_new_session=True)
        try:
            out, said = process.communicate()
        finally:
            end(process)
        if process.returncode not in status:
            raise Failed(f"{' '.join(argv)}: status {process.returncode}: {said.decode(errors='replace').strip()[-300:]}")
        return out.decode() if out else ""

    def timed(self, *argv, **options):
        begin = time.perf_counter()
        self.run(*argv, **options)
        return time.perf_counter() - begin

    def measure(self, name, *argv, more=None, **options):
        """Runs a program of this folder, which prints what measure.h says; more: what its last number is called."""
        count, seconds, p50, p99, last = (float(word) for word in self.run(self.tool(name), *argv, **options).split())
        measure = per_second(count, seconds, p50=p50, p99=p99)
        if more == "events a sync":
            measure.more[more] = count / max(last, 1)
        elif more:
            measure.more[more] = last
        return measure

    def floor(self, *argv, **options):
        return self.measure("floor", *argv, **options)

    def client(self, *argv, **options):
        return self.measure("client", *argv, **options)

    def pipe(self, *argv, stdin="-", stdout="-"):
        """Runs a command between two pipes; returns the seconds."""
        return float(self.run(self.tool("floor"), "pipe", stdin, stdout, *argv).split()[1])

    def once(self, name, make):
        """What make(path) made, the first time it is asked for."""
        if name not in self.made:
            path = os.path.join(self.scratch, name)
            make(path)
            self.made[name] = path
        return self.made[name]

    def drop(self, name):
        shutil.rmtree(self.made.pop(name))

    def room(self, bytes):
        free = shutil.disk_usage(self.scratch).free
        if free < bytes + (4 << 30):
            raise Missing(f"{bytes / 1e9:.0f} GB have no room: {free / 1e9:.0f} GB are free, and 4 stay so")

    # ---- what several rows work on

    def make_events(self, path, count, first=0):
        with open(path, "wb") as out:
            self.run(self.tool("client"), "make", count, first, stdout=out)

    def events(self, count=None):
        """A file of events."""
        count = count or self.count(1000000, 20000)
        return self.once(f"events.{count}", lambda path: self.make_events(path, count))

    def log(self):
        """A bus with these events in its topic "log"."""
        return self.once("bus", lambda path: self.run(self.evbus, "publish", "-q", "-b", path, "-t", "log", self.events()))

    def segment(self):
        return os.path.join(self.log(), "log", "partition=0.jsonl")
