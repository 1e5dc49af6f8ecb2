"""Cases in Python that start servers and the proxy. They print TAP."""
import os, shutil, subprocess, sys, tempfile, time

from helper import SOON_S, Failed, Missing, state

HERE = os.path.dirname(os.path.abspath(__file__))
PATIENCE_S = 120
NOTHING_S = 0.3   # nothing happened, if nothing did for so long

os.environ.setdefault("EVBUS_TEST_CACHE", os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "evbus-tests"))
scratch = tempfile.mkdtemp(prefix="evbus-servers.")
cases = []


def case(sentence):
    def add(function):
        cases.append((sentence, function))
        return function
    return add


def check(true, *what):
    if not true:
        raise Failed(" ".join(map(repr, what)) or "not so")


def wait_until(true, what):
    deadline = time.monotonic() + SOON_S
    while not true():
        check(time.monotonic() < deadline, f"waited in vain: {what}")
        time.sleep(0.02)


class Helper:
    """A server or a proxy, that is told what to do."""

    def __init__(self, name, *arguments):
        argv = [os.path.join(HERE, name), *map(str, arguments)]
        if name == "server":
            self.home = tempfile.mkdtemp(dir=scratch)
            argv.append(self.home)
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            self.told = self.answer()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(SOON_S)

    def answer(self):
        word, *rest = self.process.stdout.readline().split() or ["error", "it is gone"]
        if word != "ok":
            raise {"skip": Missing}.get(word, Failed)(" ".join(rest))
        return rest

    def tell(self, *command):
        print(*command, file=self.process.stdin, flush=True)
        return self.answer()

    @property
    def port(self):
        return int(self.told[0].rpartition(":")[2])


def refuses(function, *errors):
    """It fails so."""
    try:
        function()
    except errors:
        return True
    return False


def alive(pid):
    return state(f"/proc/{pid}/stat") not in "XZ"


def run(number, sentence, function):
    why = None
    try:
        function()
        print(f"ok {number} - {sentence}", flush=True)
    except Missing as error:
        print(f"ok {number} - {sentence} # SKIP {error}", flush=True)
    except Exception as error:   # whatever it is: the others are to be run
        why = f"{type(error).__name__}: {error}"
        print(f"not ok {number} - {sentence}", flush=True)
        print(f"servers: {sentence}\n    line {error.__traceback__.tb_next.tb_lineno}: {why}", file=sys.stderr, flush=True)
    return why is None


def main(at_end=lambda: None):
    print(f"TAP version 13\n1..{len(cases)}", flush=True)
    try:
        good = [run(number, *each) for number, each in enumerate(cases, 1)]
    finally:
        at_end()
        shutil.rmtree(scratch, ignore_errors=True)
    sys.exit(not all(good))
