"""Keys and tokens of NATS: what `nk` and `nsc` make, by openssl."""
import base64, binascii, json, os, subprocess, sys

KINDS = {"operator": 14 << 3, "account": 0, "user": 20 << 3}
SEED = 18 << 3
RAW_BYTES = 32   # at the end of what openssl writes of a key


def openssl(*arguments):
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True).stdout


def encode(data):
    return base64.b32encode(data + binascii.crc_hqx(data, 0).to_bytes(2, "little")).decode().rstrip("=")


def base64url(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Key:
    """Its file is made at path."""

    def __init__(self, kind, path):
        self.kind, self.path = kind, path
        openssl("genpkey", "-algorithm", "ed25519", "-outform", "DER", "-out", path)
        with open(path, "rb") as file:
            raw = file.read()[-RAW_BYTES:]
        prefix = KINDS[kind]
        self.seed = encode(bytes([SEED | prefix >> 5, (prefix & 31) << 3]) + raw)
        self.public = encode(bytes([prefix]) + openssl("pkey", "-in", path, "-inform", "DER", "-pubout", "-outform", "DER")[-RAW_BYTES:])

    def sign(self, data):
        with open(self.path + ".data", "wb") as file:
            file.write(data)
        return openssl("pkeyutl", "-sign", "-rawin", "-inkey", self.path, "-keyform", "DER", "-in", self.path + ".data")

    def token(self, about, expires=None, **claims):
        """That this key says so of another one."""
        body = {"jti": base64url(os.urandom(15)), "iat": 1700000000, "iss": self.public, "name": about.kind,
                "sub": about.public, "nats": claims | {"type": about.kind, "version": 2}}
        if expires:
            body["exp"] = expires
        text = ".".join(base64url(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, body))
        return f"{text}.{base64url(self.sign(text.encode()))}"


def credentials(token, key):
    """The file that a client logs in with."""
    return (f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{key.seed}\n------END USER NKEY SEED------\n")


def operator(home):
    """Settings of a server that believes an operator, and what its users log in with: in user.creds, other.creds (of another
    account), denied.creds (may publish no events), expired.creds, and forged.creds (signed by a stranger)."""
    def key(kind, name):
        return Key(kind, os.path.join(home, name + ".key"))
    root, accounts = key("operator", "operator"), {name: key("account", name) for name in ("system", "account", "other-account", "stranger")}
    unlimited = dict.fromkeys(["subs", "data", "payload", "imports", "exports", "conn", "leaf"], -1) | {"wildcards": True}
    storage = dict.fromkeys(["mem_storage", "disk_storage", "streams", "consumer"], -1)
    tokens = {each.public: root.token(each, limits=unlimited | (storage if name != "system" else {}))
              for name, each in accounts.items() if name != "stranger"}

    def user(name, account, pub=None, expires=None):
        own = key("user", name)
        token = accounts[account].token(own, expires, pub=pub or {}, sub={}, subs=-1, data=-1, payload=-1)
        with open(os.path.join(home, name + ".creds"), "w") as file:
            file.write(credentials(token, own))
    user("user", "account")
    user("other", "other-account")
    user("denied", "account", pub={"deny": ["evbus.>"]})
    user("expired", "account", expires=1700000060)
    user("forged", "stranger")
    preload = "\n".join(f"  {account}: {token}" for account, token in tokens.items())
    return [f"operator: {root.token(root)}", f"system_account: {accounts['system'].public}", "resolver: MEMORY",
            f"resolver_preload: {{\n{preload}\n}}"]


# A user of a server: prints the public key, and leaves the seed in the file.
if __name__ == "__main__":
    own = Key("user", sys.argv[1] + ".key")
    with open(sys.argv[1], "w") as seed:
        seed.write(own.seed + "\n")
    print(own.public)
