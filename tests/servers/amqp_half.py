#!/usr/bin/env python3
"""An AMQP server that answers by halves: tests/servers/amqp_half.py [MANNER] SEEN. Prints its port, and ends with its stdin.

    late     on the first connection it confirms the first message, waits until the second and the third one are there, gives the
             second one back without confirming it, and says nothing of the third one; when a fourth one comes it gives the third
             one back, late. On any other it confirms all. A line in SEEN for each message: the number of its connection
    judge    it does with a message as that says: "lost" comes back, "full" is refused, "away" ends all connections for good;
             anything else is confirmed, and is a line in SEEN
    mute     it accepts connections and says nothing; a line in SEEN for each"""
import contextlib, itertools, socket, struct, sys, threading

sys.dont_write_bytecode = True

import helper
from amqp import BASIC, BODY, CHANNEL, CONFIRM, CONNECTION, HEADER, METHOD, framed, read_frame, short, table


class Served(helper.Connection):
    """One that confirms all."""

    def __init__(self, accepted, number, seen):
        self.socket, self.file, self.number, self.seen = accepted, accepted.makefile("rb"), number, seen
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def see(self, what):
        print(what, file=self.seen, flush=True)

    def say(self, kind, method, arguments, channel=1):
        self.send(framed(METHOD, channel, struct.pack(">HH", kind, method) + arguments))

    def confirm(self, tag):
        self.say(BASIC, 80, struct.pack(">QB", tag, 0))

    def give_back(self):
        self.say(BASIC, 50, struct.pack(">H", 312) + short("NO_ROUTE") + short("") + short("key"))
        self.send(framed(HEADER, 1, struct.pack(">HHQH", BASIC, 0, 2, 0)), framed(BODY, 1, b"{}"))

    def refuse(self, tag):
        self.say(BASIC, 120, struct.pack(">QB", tag, 0))

    def take(self, tag, body, mandatory):
        self.confirm(tag)

    def answer(self, which):
        answers = {(CONNECTION, 31): None, (CONNECTION, 11): (30, struct.pack(">HIH", 1, 131072, 0)), (CONNECTION, 40): (41, b"\0"),
                   (CHANNEL, 10): (11, b"\0\0\0\0"), (CONFIRM, 10): (11, b""), (CONNECTION, 50): (51, b"")}
        if answers.get(which):
            self.say(which[0], *answers[which], channel=int(which[0] != CONNECTION))

    def run(self):
        with self, contextlib.suppress(EOFError, OSError):
            self.serve()

    def serve(self):
        tag, size, body, mandatory = 0, 0, b"", 0
        self.read(8)
        self.say(CONNECTION, 10, b"\0\x09" + table({}) + struct.pack(">I", 5) + b"PLAIN" + struct.pack(">I", 5) + b"en_US", 0)
        while True:
            kind, text = read_frame(self)
            if kind == METHOD:
                which = text.number("H"), text.number("H")
                self.answer(which)
                if which == (BASIC, 40):
                    text.take(2), text.short(), text.short()
                    mandatory = text.number("B") & 1
            elif kind == HEADER:
                size, tag, body = struct.unpack(">Q", text.data[4:12])[0], tag + 1, b""
            elif kind == BODY:
                body += text.data
                if len(body) == size:
                    self.take(tag, body, mandatory)


class Late(Served):
    def take(self, tag, body, mandatory):
        self.see(self.number)
        if self.number == 1 and tag in (3, 4):
            self.give_back()
        if self.number > 1 or tag not in (2, 3):
            self.confirm(tag)


class Judge(Served):
    gone = threading.Event()

    def take(self, tag, body, mandatory):
        if b"away" in body or self.gone.is_set():
            self.gone.set()
            self.socket.shutdown(socket.SHUT_RDWR)
        elif b"full" in body:
            self.refuse(tag)
        else:
            if b"lost" not in body:
                self.see(body.decode())
            elif mandatory:
                self.give_back()   # before it is confirmed, as RabbitMQ does
            self.confirm(tag)

    def serve(self):
        if not self.gone.is_set():
            super().serve()


class Mute(Served):
    def serve(self):
        self.see(self.number)
        self.file.read()


def main():
    helper.begin()
    *manner, seen = sys.argv[1:]
    manner = {"late": Late, "judge": Judge, "mute": Mute}[manner[0] if manner else "late"]
    listener = socket.create_server((helper.HOST, 0))
    threading.Thread(target=accept, args=(listener, manner, open(seen, "w", encoding="utf-8")), daemon=True).start()
    print("ok", listener.getsockname()[1], flush=True)
    sys.stdin.read()


def accept(listener, manner, seen):
    for number in itertools.count(1):
        threading.Thread(target=manner(listener.accept()[0], number, seen).run, daemon=True).start()


main()
