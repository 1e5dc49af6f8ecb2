"""As much of AMQP 0-9-1 as the tests need, by hand: what they say must not depend on the client under test."""
import json, struct

from helper import Connection, Failed

METHOD, HEADER, BODY = 1, 2, 3
CONNECTION, CHANNEL, EXCHANGE, QUEUE, BASIC, CONFIRM = 10, 20, 40, 50, 60, 85

# Of a message, from the highest bit of its flags down.
PROPERTIES = [("content_type", "s"), ("content_encoding", "s"), ("headers", "F"), ("delivery_mode", "B"), ("priority", "B"),
              ("correlation_id", "s"), ("reply_to", "s"), ("expiration", "s"), ("message_id", "s"), ("timestamp", "Q"),
              ("type", "s"), ("user_id", "s"), ("app_id", "s"), ("cluster_id", "s")]


def short(text):
    data = text.encode()
    return bytes([len(data)]) + data


def table(values):
    """Of numbers and texts."""
    data = b""
    for name, value in values.items():
        text = value.encode() if isinstance(value, str) else None
        data += short(name) + (b"l" + struct.pack(">q", value) if text is None else b"S" + struct.pack(">I", len(text)) + text)
    return struct.pack(">I", len(data)) + data


class Text:
    """What is read from."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        self.at += n
        return self.data[self.at - n:self.at]

    def number(self, form):
        return struct.unpack(">" + form, self.take(struct.calcsize(">" + form)))[0]

    def short(self):
        return self.take(self.number("B")).decode()

    def long(self):
        return self.take(self.number("I")).decode(errors="replace")

    def table(self):
        values, end = {}, self.number("I") + self.at
        while self.at < end:
            name, kind = self.short(), self.take(1)
            if kind not in b"SIlT":
                raise Failed(f"a field of the kind {kind} is not known here")
            values[name] = self.long() if kind == b"S" else self.number({b"I": "i", b"l": "q", b"T": "Q"}[kind])
        return values

    def properties(self):
        flags = self.number("H")
        read = {"s": self.short, "F": self.table}
        return {name: (read[kind]() if kind in read else self.number(kind))
                for i, (name, kind) in enumerate(PROPERTIES) if flags & 1 << 15 - i}


def framed(kind, channel, payload):
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def read_frame(connection):
    """Its kind, and what is in it."""
    kind, _, size = struct.unpack(">BHI", connection.read(7))
    return kind, Text(connection.read(size + 1)[:-1])


class Client(Connection):
    def __init__(self, port, user, password):
        super().__init__(port)
        try:
            self.send(b"AMQP\0\0\x09\x01")
            self.expect(CONNECTION, 10)
            self.ask(CONNECTION, 11, table({}) + short("PLAIN") + struct.pack(">I", len(user + password) + 2) +
                     f"\0{user}\0{password}".encode() + short("en_US"), channel=0)
            self.expect(CONNECTION, 30)
            self.ask(CONNECTION, 31, struct.pack(">HIH", 1, 131072, 0), channel=0)
            self.ask(CONNECTION, 40, short("/") + b"\0\0", channel=0)
            self.expect(CONNECTION, 41)
            self.call(CHANNEL, 10, b"\0")
        except BaseException:
            self.close()
            raise

    def ask(self, kind, method, arguments, channel=1):
        self.send(framed(METHOD, channel, struct.pack(">HH", kind, method) + arguments))

    def method(self):
        """Which one, and its arguments. What closes the channel or the connection is a failure."""
        kind, text = read_frame(self)
        which = (text.number("H"), text.number("H")) if kind == METHOD else None
        if which in ((CHANNEL, 40), (CONNECTION, 50)):
            raise Failed(f"{text.number('H')} {text.short()}")
        return which, text

    def expect(self, *which):
        found, text = self.method()
        if found != which:
            raise Failed(f"{found} instead of {which}")
        return text

    def call(self, kind, method, arguments):
        self.ask(kind, method, arguments)
        return self.expect(kind, method + 1)

    def make_queue(self, name, durable=True, **arguments):
        self.call(QUEUE, 10, b"\0\0" + short(name) + bytes([2 * durable]) + table(arguments))

    def delete_queue(self, name):
        self.call(QUEUE, 40, b"\0\0" + short(name) + b"\0")

    def make_exchange(self, name, kind):
        self.call(EXCHANGE, 10, b"\0\0" + short(name) + short(kind) + b"\2" + table({}))

    def bind(self, queue, exchange, key):
        self.call(QUEUE, 20, b"\0\0" + short(queue) + short(exchange) + short(key) + b"\0" + table({}))

    def confirmed(self, exchange, key, bodies):
        """Publishes them, persistent, and says how many were confirmed."""
        self.call(CONFIRM, 10, b"\0")
        for body in bodies:
            self.ask(BASIC, 40, b"\0\0" + short(exchange) + short(key) + b"\0")
            head = struct.pack(">HHQHB", BASIC, 0, len(body), 1 << 12, 2)
            for kind, payload in (HEADER, head), (BODY, body):
                self.send(framed(kind, 1, payload))
        last = count = 0
        while last < len(bodies):
            tag, several = (text := self.expect(BASIC, 80)).number("Q"), text.number("B")
            count += tag - last if several else 1
            last = max(last, tag)
        return count

    def messages(self, queue):
        """All that are there, in their order; they are taken."""
        while True:
            self.ask(BASIC, 70, b"\0\0" + short(queue) + b"\1")
            which, text = self.method()
            if which == (BASIC, 72):
                return
            text.take(9)
            message = {"exchange": text.short(), "routing_key": text.short()}
            _, head = read_frame(self)
            head.take(4)
            size = head.number("Q")
            message |= head.properties()
            body = b""
            while len(body) < size:
                body += read_frame(self)[1].data
            yield message | {"body": body.decode(errors="surrogateescape")}

    def take(self, queue, path):
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as out:
            n = 0
            for n, message in enumerate(self.messages(queue), 1):
                print(json.dumps(message, ensure_ascii=False), file=out)
        return n
