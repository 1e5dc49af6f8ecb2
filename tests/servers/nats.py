"""As much of the protocol of NATS as the tests need, by hand: what they say must not depend on the client under test."""
import json, ssl

from helper import HOST, Connection, Failed


def trust(authority, certificate=None, key=None):
    """For TLS: whom to believe, and what to show."""
    context = ssl.create_default_context(cafile=authority)
    if certificate:
        context.load_cert_chain(certificate, key)
    return context


def info(port):
    """What the server says of itself to anybody."""
    with Connection(port) as server:
        return json.loads(server.line().removeprefix(b"INFO "))


class Client(Connection):
    def __init__(self, port, user=None, tls=None):
        super().__init__(port)
        try:
            self.info = json.loads(self.line().removeprefix(b"INFO "))
            if tls:
                self.socket = tls.wrap_socket(self.socket, server_hostname=HOST)
                self.file = self.socket.makefile("rb")
            options = {"verbose": False, "pedantic": False, "lang": "test", "version": "1", "headers": True,
                       "no_responders": True}
            if user:
                options["user"], options["pass"] = user
            self.send(b"CONNECT " + json.dumps(options).encode() + b"\r\nPING\r\n")
            if self.line() != b"PONG":
                raise Failed("no PONG")
        except BaseException:
            self.close()
            raise

    def line(self):
        line = super().line()
        if line.startswith(b"-ERR"):
            raise Failed(line.decode())
        return line

    def request(self, subject, payload=b""):
        """What is answered; nothing, where nobody listens."""
        self.send(b"SUB in 1\r\nPUB %s in %d\r\n%s\r\n" % (subject.encode(), len(payload), payload))
        while True:
            words = self.line().split()
            if words[0] == b"PING":
                self.send(b"PONG\r\n")
            elif words[0] in (b"MSG", b"HMSG"):   # sizes: of all, and before it of the headers
                headers = int(words[-2]) if words[0] == b"HMSG" else 0
                body = self.read(int(words[-1]) + 2)[:-2]
                self.send(b"UNSUB 1\r\n")
                return body[headers:]

    def ask(self, subject, **body):
        """Of JetStream's API."""
        answer = json.loads(self.request(subject, json.dumps(body).encode() if body else b""))
        if "error" in answer:
            raise Failed(answer["error"]["description"])
        return answer
