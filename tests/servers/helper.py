"""What the servers and the proxy have in common: a port of their own, and an end when the test ends."""
import ctypes, os, signal, socket, sys

HOST = "127.0.0.1"
SOON_S = 10       # what must happen on a busy machine
SKIPPED = 77   # exit status of what cannot be had here

libc = ctypes.CDLL(None)


class Failed(Exception):
    """Something is not as it should be."""


class Missing(Exception):
    """Something cannot be had here."""


def reserve():
    """A port that nobody else gets as long as the socket is open. It is bound and does not listen, so who connects is
    refused; the kernel gives it to nobody who asks for any port, nor to an outgoing connection. It is made to allow reuse
    only after it was bound: a server that allows reuse can listen there, and the next who reserves cannot bind it."""
    holder = socket.socket()
    holder.bind((HOST, 0))
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return holder


def port_of(holder):
    return holder.getsockname()[1]


def die_with_parent():
    """The kernel kills this process when its parent ends, in whatever way; also if it is stopped."""
    libc.prctl(1, int(signal.SIGKILL), 0, 0, 0)   # PR_SET_PDEATHSIG


def state(path):
    """Of a process or a thread; X for none."""
    try:
        with open(path) as file:
            return file.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def children(parent):
    """Of a process, as of now."""
    def parent_of(pid):
        try:
            with open(f"/proc/{pid}/stat") as file:
                return int(file.read().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            return None
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if parent_of(pid) == parent]


def connect(port, timeout=SOON_S):
    return socket.create_connection((HOST, port), timeout)


class Connection:
    """To a server that runs here. What is read from it, or the failure, is there within the time-out."""

    def __init__(self, port):
        self.socket = connect(port)
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.file.close()
        self.socket.close()

    def send(self, *parts):
        self.socket.sendall(b"".join(parts))

    def read(self, size):
        """So many bytes."""
        return self.whole(data := self.file.read(size), len(data) == size)

    def line(self):
        """Without its end."""
        return self.whole(data := self.file.readline(), data.endswith(b"\r\n")).rstrip()

    @staticmethod
    def whole(data, all_of_it):
        if not all_of_it:
            raise EOFError("the server has closed the connection")
        return data


def begin():
    """From here on this process ends when the one that started it does, and with it what it started; a signal from the
    terminal is for the test."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    sys.stdout.reconfigure(line_buffering=True)


def answer(*words):
    """To a command; whoever asked may be gone, which the end of stdin says."""
    try:
        print(*words)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def give_up(error):
    missing = isinstance(error, Missing)
    answer("skip" if missing else "error", " ".join(str(error).split()))
    sys.exit(SKIPPED if missing else 1)
