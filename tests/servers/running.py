"""What the servers of the tests have in common: to run, and to end with the test."""
import os, shutil, signal, subprocess, time

import helper
from helper import HOST, Failed, Missing

PATIENCE_S = 90   # until it answers, on a machine that does other work
STOPPING_S = 30


def program(name, package, where=""):
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin" + where)
    if not found:
        raise Missing(f"there is no {name} (package {package}; tests/deps servers installs it)")
    return found


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def certificates(home):
    """Of two authorities that know nothing of each other."""
    def make(name, *authority):
        subprocess.run([program("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext",
                        f"subjectAltName=IP:{HOST},DNS:localhost", "-keyout", f"{name}.key", "-out", f"{name}.pem",
                        *authority], cwd=home, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for authority, names in {"ca": ["server", "client"], "stranger-ca": ["stranger"]}.items():
        make(authority)
        for name in names:
            make(name, "-CA", f"{authority}.pem", "-CAkey", f"{authority}.key")


class Server:
    stops_by = signal.SIGTERM

    def __init__(self, home):
        self.home, self.process = os.path.abspath(home), None
        os.makedirs(self.home, exist_ok=True)

    def path(self, name):
        return os.path.join(self.home, name)

    def running(self):
        return self.process is not None and self.process.poll() is None

    def start(self):
        if self.running():
            raise Failed("it runs")
        with open(self.path("output"), "ab") as out:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=self.home,
                                            preexec_fn=helper.die_with_parent)
        deadline = time.monotonic() + PATIENCE_S
        while not self.answers():
            if not self.running() or time.monotonic() > deadline:
                self.end()
                with open(self.path("output"), errors="replace") as out:
                    raise Failed(f"it does not answer: {out.read()[-400:]}")
            time.sleep(0.02)

    def answers(self):
        try:
            return self.probe()
        except (OSError, EOFError):
            return False

    def signal(self, number):
        if not self.running():
            raise Failed("it does not run")
        self.process.send_signal(number)

    def stop(self):
        self.signal(signal.SIGCONT)
        self.signal(self.stops_by)
        try:
            self.process.wait(STOPPING_S)
        except subprocess.TimeoutExpired:
            raise Failed(f"it did not end within {STOPPING_S} s") from None

    def end(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    kill = end

    def pause(self):
        """Until each of its threads has stopped, which takes some time."""
        self.signal(signal.SIGSTOP)
        threads, deadline = f"/proc/{self.process.pid}/task", time.monotonic() + STOPPING_S
        while any(helper.state(f"{threads}/{thread}/stat") not in "TXZ" for thread in os.listdir(threads)):
            if time.monotonic() > deadline:
                raise Failed(f"it did not stop within {STOPPING_S} s")
            time.sleep(0.001)

    def resume(self):
        self.signal(signal.SIGCONT)

    def pid(self):
        return [self.process.pid]
