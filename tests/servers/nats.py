"""As much of the protocol of NATS as the tests need, by hand: what they say must not depend on the client under test."""
import json, socket, ssl

from helper import HOST, Failed

PATIENCE_S = 10


def trust(authority, certificate=None, key=None):
    """For TLS: whom to believe, and what to show."""
    context = ssl.create_default_context(cafile=authority)
    if certificate:
        context.load_cert_chain(certificate, key)
    return context


def info(port):
    """What the server says of itself to anybody."""
    with socket.create_connection((HOST, port), PATIENCE_S) as server, server.makefile("rb") as file:
        return json.loads(file.readline().removeprefix(b"INFO ") or b"{}")


class Client:
    def __init__(self, port, user=None, tls=None):
        self.socket = socket.create_connection((HOST, port), PATIENCE_S)
        self.file = self.socket.makefile("rb")
        try:
            self.info = json.loads(self.line().removeprefix(b"INFO "))
            if tls:
                self.socket = tls.wrap_socket(self.socket, server_hostname=HOST)
                self.file = self.socket.makefile("rb")
            options = {"verbose": False, "pedantic": False, "lang": "test", "version": "1", "headers": True,
                       "no_responders": True}
            if user:
                options["user"], options["pass"] = user
            self.socket.sendall(b"CONNECT " + json.dumps(options).encode() + b"\r\nPING\r\n")
            if self.line() != b"PONG":
                raise Failed("no PONG")
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.file.close()
        self.socket.close()

    def line(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError("the server has closed the connection")
        if line.startswith(b"-ERR"):
            raise Failed(line.decode().strip())
        return line.rstrip()

    def request(self, subject, payload=b""):
        """What is answered; nothing, where nobody listens."""
        self.socket.sendall(b"SUB in 1\r\nPUB %s in %d\r\n%s\r\n" % (subject.encode(), len(payload), payload))
        while True:
            words = self.line().split()
            if words[0] == b"PING":
                self.socket.sendall(b"PONG\r\n")
            elif words[0] in (b"MSG", b"HMSG"):   # sizes: of all, and before it of the headers
                headers = int(words[-2]) if words[0] == b"HMSG" else 0
                body = self.file.read(int(words[-1]) + 2)[:-2]
                self.socket.sendall(b"UNSUB 1\r\n")
                return body[headers:]

    def ask(self, subject, **body):
        """Of JetStream's API."""
        answer = json.loads(self.request(subject, json.dumps(body).encode() if body else b""))
        if "error" in answer:
            raise Failed(answer["error"]["description"])
        return answer
