"""What librdkafka's mock cluster lacks of a broker, in front of it: topics are made by request (19), none appears because
somebody asks for it (3), and a time is looked for (2): the mock does not know it, so the answer is the beginning, and who
wants it to the microsecond reads on from there. It says (18) what it understands, none of it in the encoding with tags."""
import socket, struct, threading

from helper import HOST
from kafka import Answer, array, text

LIST_OFFSETS, METADATA, VERSIONS, CREATE_TOPICS = 2, 3, 18, 19
UNDERSTOOD = {0: (0, 7), 1: (0, 11), LIST_OFFSETS: (0, 2), METADATA: (0, 2), VERSIONS: (0, 0), CREATE_TOPICS: (0, 4), 22: (0, 1)}
UNKNOWN_TOPIC, UNSUPPORTED, EXISTS = 3, 35, 36


def frame(data):
    return struct.pack(">i", len(data)) + data


def read_frame(file):
    size = file.read(4)
    if len(size) < 4:
        raise EOFError
    data = file.read(struct.unpack(">i", size)[0])
    return data


class Front:
    def __init__(self, mock_port, make_topic):
        self.mock_port, self.make_topic = mock_port, make_topic
        self.topics, self.lock = set(), threading.Lock()
        self.listener = socket.create_server((HOST, 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        server = socket.create_connection((HOST, self.mock_port))
        for end in client, server:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        asked, sending = {}, threading.Lock()   # of metadata: the topics that are not there, by request
        threading.Thread(target=self.carry_back, args=(client, server, asked, sending), daemon=True).start()
        try:
            with client.makefile("rb") as file:
                while True:
                    answer = self.take(read_frame(file), server, asked)
                    if answer:
                        with sending:
                            client.sendall(frame(answer))
        except (OSError, EOFError):
            pass
        for end in client, server:
            end.close()

    def take(self, request, server, asked):
        """Answers, or passes it on."""
        a = Answer(request)
        key, version, number = a.number("h"), a.number("h"), a.data[4:8]
        a.at = 8
        a.text()
        head = request[:a.at]
        if key == VERSIONS:
            versions = [struct.pack(">hhh", each, *span) for each, span in UNDERSTOOD.items()]
            return number + struct.pack(">h", 0 if version == 0 else UNSUPPORTED) + array(versions)
        if key == CREATE_TOPICS:
            return number + self.create(a, version)
        if key == METADATA:
            request, unknown = self.known(a, head, request)
            asked[number] = version, unknown
        if key == LIST_OFFSETS:
            request = request[:a.at] + self.from_beginning(a, version)
        server.sendall(frame(request))
        return None

    def create(self, a, version):
        def one():
            name, partitions, _ = a.text(), a.number("i"), a.number("h")
            a.array(lambda: (a.number("i"), a.array(lambda: a.number("i")))), a.array(lambda: (a.text(), a.text()))
            with self.lock:
                code = EXISTS if name in self.topics or not self.make_topic(name, partitions) else 0
                self.topics.add(name)
            return text(name) + struct.pack(">h", code) + (struct.pack(">h", -1) if version >= 1 else b"")
        return (struct.pack(">i", 0) if version >= 2 else b"") + array(a.array(one))

    def known(self, a, head, request):
        """The request without the topics that are not there, and those."""
        every = struct.unpack_from(">i", a.data, a.at)[0] == -1
        names = a.array(a.text)
        unknown = [name for name in names if name not in self.topics]
        return request if every else head + array([text(name) for name in names if name in self.topics]), unknown

    @staticmethod
    def from_beginning(a, version):
        def partition():
            number, time = a.number("i"), a.number("q")
            return struct.pack(">iq", number, min(time, -2) if time >= 0 else time) + (b"" if version else struct.pack(">i", a.number("i")))
        out = struct.pack(">i", a.number("i"))
        out += struct.pack(">b", a.number("b")) if version >= 2 else b""
        return out + array(a.array(lambda: text(a.text()) + array(a.array(partition))))

    def carry_back(self, client, server, asked, sending):
        try:
            with server.makefile("rb") as file:
                while True:
                    answer = read_frame(file)
                    if answer[:4] in asked:
                        answer = answer[:4] + self.as_ours(Answer(answer[4:]), *asked.pop(answer[:4]))
                    with sending:
                        client.sendall(frame(answer))
        except (OSError, EOFError):
            client.close()

    def as_ours(self, a, version, unknown):
        """We are the broker, and some topics are not there."""
        def broker():
            number, host, _ = a.number("i"), a.text(), a.number("i")
            if version >= 1:
                a.text()
            return struct.pack(">i", number) + text(host) + struct.pack(">i", self.port) + (struct.pack(">h", -1) if version >= 1 else b"")
        out = array(a.array(broker))
        out += text(a.text()) if version >= 2 else b""
        if version >= 1:   # who makes topics: the one there is, which the mock does not say
            out, _ = out + struct.pack(">i", 1), a.number("i")
        count = a.number("i")
        gone = [struct.pack(">h", UNKNOWN_TOPIC) + text(name) + (b"\0" if version >= 1 else b"") + array([]) for name in unknown]
        return out + struct.pack(">i", count + len(gone)) + a.data[a.at:] + b"".join(gone)
