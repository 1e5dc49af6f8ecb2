"""As much of the protocol of Kafka as the tests need to make a topic and to see that it can be used. Everything else is
done with kcat."""
import struct

from helper import SOON_S, Connection, Failed

# Request and version: of those before the tagged fields.
LIST_OFFSETS, METADATA, CREATE_TOPICS, CREATE_PARTITIONS = (2, 2), (3, 4), (19, 2), (37, 1)


def text(word):
    return struct.pack(">h", len(word)) + word.encode()


def array(items):
    return struct.pack(">i", len(items)) + b"".join(items)


class Answer:
    def __init__(self, data):
        self.data, self.at = data, 0

    def number(self, form):
        value, = struct.unpack_from(">" + form, self.data, self.at)
        self.at += struct.calcsize(form)
        return value

    def text(self):
        size = max(self.number("h"), 0)
        self.at += size
        return self.data[self.at - size:self.at].decode()

    def array(self, read):
        return [read() for _ in range(max(self.number("i"), 0))]


def ask(port, request, body):
    message = struct.pack(">hhi", *request, 1) + text("test") + body
    with Connection(port) as server:
        server.send(struct.pack(">i", len(message)), message)
        return Answer(server.read(struct.unpack(">i", server.read(4))[0])[4:])


def leads(port):
    """The broker knows itself, and leads each partition there is."""
    a = ask(port, METADATA, struct.pack(">i?", -1, False))
    a.number("i")
    brokers = a.array(lambda: (a.number("i"), a.text(), a.number("i"), a.text()))
    a.text(), a.number("i")

    def partition():
        code, _, leader = a.number("h"), a.number("i"), a.number("i")
        a.array(lambda: a.number("i")), a.array(lambda: a.number("i"))
        return code == 0 and leader >= 0

    topics = a.array(lambda: (a.number("h"), a.text(), a.number("?"), a.array(partition)))
    return bool(brokers) and all(code == 0 and all(partitions) for code, _, _, partitions in topics)


def end(port, name, committed):
    """Of partition 0, for those who read what is committed, or all."""
    a = ask(port, LIST_OFFSETS, struct.pack(">ib", -1, committed) + array([text(name) + array([struct.pack(">iq", 0, -1)])]))
    a.number("i")
    (_, [(_, code, _, offset)]), = a.array(lambda: (
        a.text(), a.array(lambda: (a.number("i"), a.number("h"), a.number("q"), a.number("q")))))
    if code != 0:
        raise Failed(f"cannot find the end of topic '{name}': {code}")
    return offset


def settled(port, name):
    """No transaction is open: what ends one stands there a while after the broker said that it has ended."""
    return end(port, name, True) == end(port, name, False)


def create_topic(port, name, partitions, settings):
    topic = (text(name) + struct.pack(">ih", partitions, 1) + array([]) +
             array([text(key) + text(value) for key, value in settings.items()]))
    a = ask(port, CREATE_TOPICS, array([topic]) + struct.pack(">i?", SOON_S * 1000, False))
    a.number("i")
    for _, code, why in a.array(lambda: (a.text(), a.number("h"), a.text())):
        if code != 0:
            raise Failed(f"cannot make topic '{name}': {code} {why}")


def add_partitions(port, name, count):
    """So that there are so many."""
    a = ask(port, CREATE_PARTITIONS, array([text(name) + struct.pack(">ii", count, -1)]) +
            struct.pack(">i?", SOON_S * 1000, False))
    a.number("i")
    for _, code, why in a.array(lambda: (a.text(), a.number("h"), a.text())):
        if code != 0:
            raise Failed(f"cannot add partitions to topic '{name}': {code} {why}")
