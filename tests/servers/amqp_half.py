#!/usr/bin/env python3
"""An AMQP server that answers by halves: tests/servers/amqp_half.py SEEN. Prints its port, and ends with its stdin.

On the first connection it confirms the first message, waits until the second and the third one are there, gives the second one
back without confirming it, and says nothing of the third one; when a fourth one comes it gives the third one back, late. On any
other it confirms all. A line in SEEN for each message: the number of its connection."""
import itertools, socket, struct, sys, threading

sys.dont_write_bytecode = True

import helper
from amqp import BASIC, BODY, CHANNEL, CONFIRM, CONNECTION, HEADER, METHOD, Text, short, table


class Connection:
    def __init__(self, accepted, number, seen):
        self.socket, self.file, self.number, self.seen = accepted, accepted.makefile("rb"), number, seen

    def send(self, kind, method, arguments, channel=1):
        self.frame(METHOD, channel, struct.pack(">HH", kind, method) + arguments)

    def frame(self, kind, channel, payload):
        self.socket.sendall(struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce")

    def confirm(self, tag):
        self.send(BASIC, 80, struct.pack(">QB", tag, 0))

    def give_back(self):
        self.send(BASIC, 50, struct.pack(">H", 312) + short("NO_ROUTE") + short("") + short("key"))
        self.frame(HEADER, 1, struct.pack(">HHQH", BASIC, 0, 2, 0))
        self.frame(BODY, 1, b"{}")

    def take(self, tag):
        print(self.number, file=self.seen, flush=True)
        if self.number == 1 and tag in (3, 4):
            self.give_back()
        if self.number > 1 or tag not in (2, 3):
            self.confirm(tag)

    def answer(self, which):
        answers = {(CONNECTION, 31): None, (CONNECTION, 11): (30, struct.pack(">HIH", 1, 131072, 0)), (CONNECTION, 40): (41, b"\0"),
                   (CHANNEL, 10): (11, b"\0\0\0\0"), (CONFIRM, 10): (11, b""), (CONNECTION, 50): (51, b"")}
        if answers.get(which):
            self.send(which[0], *answers[which], channel=int(which[0] != CONNECTION))

    def run(self):
        tag = left = 0
        self.file.read(8)
        self.send(CONNECTION, 10, b"\0\x09" + table({}) + struct.pack(">I", 5) + b"PLAIN" + struct.pack(">I", 5) + b"en_US", 0)
        while len(head := self.file.read(7)) == 7:
            kind, _, size = struct.unpack(">BHI", head)
            text = Text(self.file.read(size + 1)[:-1])
            if kind == METHOD:
                self.answer((text.number("H"), text.number("H")))
            elif kind == HEADER:
                left, tag = struct.unpack(">Q", text.data[4:12])[0], tag + 1
            elif kind == BODY:
                left -= size
                if not left:
                    self.take(tag)


def main():
    helper.begin()
    listener = socket.create_server((helper.HOST, 0))
    print("ok", listener.getsockname()[1], flush=True)
    threading.Thread(target=accept, args=(listener, open(sys.argv[1], "w", encoding="utf-8")), daemon=True).start()
    sys.stdin.read()


def accept(listener, seen):
    for number in itertools.count(1):
        threading.Thread(target=Connection(listener.accept()[0], number, seen).run, daemon=True).start()


main()
