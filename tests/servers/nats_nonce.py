#!/usr/bin/env python3
"""A NATS server that lets in who signs: tests/servers/nats_nonce.py FILES. Prints its port and the public key of who may,
whose seed is FILES.seed, and ends with its stdin.

What the first connection has to sign is chosen so that the signature begins with a zero. A line in FILES for each
connection: signed or unsigned. It answers nothing that is asked behind that."""
import itertools, json, socket, sys, threading

sys.dont_write_bytecode = True

import helper
from nkeys import Key


def nonces(key):
    """One whose signature begins with a zero, which one of 256 does, and then one whose does not."""
    tried = [f"nonce-{n}" for n in range(5000)]
    first = next(n for n in tried if key.sign(n.encode())[0] == 0)
    yield first
    yield from itertools.repeat(next(n for n in tried if key.sign(n.encode())[0] != 0))


def talk(accepted, nonce, seen):
    about = {"server_id": "N", "version": "2.9.10", "proto": 1, "headers": True, "auth_required": True, "jetstream": True,
             "max_payload": 1048576, "nonce": nonce}
    accepted.sendall(f"INFO {json.dumps(about)}\r\n".encode())
    for line in accepted.makefile("rb"):
        if line.startswith(b"CONNECT "):
            signed = bool(json.loads(line[8:]).get("sig"))
            print("signed" if signed else "unsigned", file=seen, flush=True)
            if not signed:
                accepted.sendall(b"-ERR 'Authorization Violation'\r\n")
                accepted.shutdown(socket.SHUT_RDWR)
                return
        elif line.startswith(b"PING"):
            accepted.sendall(b"PONG\r\n")


def main():
    helper.begin()
    files = sys.argv[1]
    key = Key("user", files + ".key")
    with open(files + ".seed", "w", encoding="utf-8") as seed:
        seed.write(key.seed + "\n")
    listener = socket.create_server((helper.HOST, 0))
    ahead = nonces(key)
    order = itertools.chain([next(ahead), next(ahead)], ahead)
    print("ok", listener.getsockname()[1], key.public, flush=True)
    threading.Thread(target=accept, args=(listener, order, open(files, "w", encoding="utf-8")), daemon=True).start()
    sys.stdin.read()


def accept(listener, order, seen):
    for nonce in order:
        threading.Thread(target=talk, args=(listener.accept()[0], nonce, seen), daemon=True).start()


main()
