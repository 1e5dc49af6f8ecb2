"""What kinesalite lacks of Kinesis, in front of it: it checks each signature, computed here and not by any library of the
client's, refuses what comes too often, fails some of the records of a call, and keeps records no longer, as it is told."""
import hashlib, hmac, http.client, http.server, json, socketserver, threading, time

from helper import HOST, Failed

KEY_ID, SECRET, TOKEN, REGION = "AKIDTEST", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "session/+token==", "us-east-1"
THROTTLED = "ProvisionedThroughputExceededException"


def mac(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def sign(method, path, headers, names, date, body):
    """Signature version 4 of Amazon, as its documentation has it."""
    canonical = "\n".join([method, path, "", *(f"{name}:{' '.join(headers[name].split())}" for name in names), "",
                           ";".join(names), hashlib.sha256(body).hexdigest()])
    scope = f"{date[:8]}/{REGION}/kinesis/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", date, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = ("AWS4" + SECRET).encode()
    for part in scope.split("/"):
        key = mac(key, part)
    return scope, mac(key, text).hex()


def why_refused(headers, path, body):
    """Of a request; None: it is signed as it should be."""
    kind, _, rest = headers.get("Authorization", "").partition(" ")
    given = dict(part.strip().split("=", 1) for part in rest.split(",") if "=" in part)
    names, date = given.get("SignedHeaders", "").split(";"), headers.get("X-Amz-Date", "")
    if kind != "AWS4-HMAC-SHA256" or any(name not in headers for name in names):
        return "MissingAuthenticationTokenException"
    if not {"host", "x-amz-date", "x-amz-target"} <= set(names) or headers.get("X-Amz-Security-Token", TOKEN) != TOKEN:
        return "UnrecognizedClientException"
    if "X-Amz-Security-Token" in headers and "x-amz-security-token" not in names:
        return "UnrecognizedClientException"
    scope, signature = sign("POST", path, headers, names, date, body)
    if given.get("Credential") != f"{KEY_ID}/{scope}":
        return "UnrecognizedClientException"
    return None if hmac.compare_digest(given.get("Signature", ""), signature) else "InvalidSignatureException"


def signed(action, body, port):
    date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    headers = {"host": f"{HOST}:{port}", "content-type": "application/x-amz-json-1.1", "x-amz-date": date,
               "x-amz-target": f"Kinesis_20131202.{action}"}
    scope, signature = sign("POST", "/", headers, sorted(headers), date, body)
    headers["authorization"] = (f"AWS4-HMAC-SHA256 Credential={KEY_ID}/{scope}, SignedHeaders={';'.join(sorted(headers))}, "
                                f"Signature={signature}")
    return headers


def call(port, action, text):
    """What the server itself answers, whatever the front has been told."""
    body = text.encode()
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request("POST", "/", body, signed(action, body, port))
        answer = connection.getresponse()
        data = answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        raise Failed(f"{action}: {error}") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise Failed(f"{action}: {answer.status} {data}")
    return data


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        """Clients go away."""


class Front:
    def __init__(self, holder_port, server_port):
        self.server_port, self.lock, self.seen = server_port, threading.Lock(), {}
        self.throttled, self.failing, self.counted, self.expired = {}, 0, 0, -1
        front = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def do_POST(self):
                front.serve(self)

            def log_message(self, *_):
                """Nobody reads it."""
        self.server = Server((HOST, holder_port), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def serve(self, request):
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        action = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
        status, data = self.answer(request, action, body)
        request.send_response(status)
        request.send_header("Content-Type", "application/x-amz-json-1.1")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    def answer(self, request, action, body):
        why = why_refused(request.headers, request.path, body)
        with self.lock:
            self.seen[action] = self.seen.get(action, 0) + 1
            if not why and self.throttled.get(action, 0):
                self.throttled[action] -= 1
                why = THROTTLED
        if why:
            return 400, json.dumps({"__type": why, "message": "the front refuses it"}).encode()
        kept = self.keep(json.loads(body)) if action == "PutRecords" and self.failing else None
        status, data = self.ask(action, body if kept is None else kept[0], request.headers)
        if status == 200 and self.expired >= 0:
            data = {"GetRecords": self.expire, "ListShards": self.forget}.get(action, lambda data: data)(data)
        return status, self.put_back(data, kept[1]) if kept and status == 200 else data

    def expire(self, data):
        """Who asks for what is no longer kept gets what is left behind it, and is told that there is more."""
        answer = json.loads(data)
        left = [record for record in answer["Records"] if int(record["SequenceNumber"]) > self.expired]
        behind = 1000 if len(left) < len(answer["Records"]) else answer["MillisBehindLatest"]
        return json.dumps(answer | {"Records": left, "MillisBehindLatest": behind}).encode()

    def forget(self, data):
        """A shard that is closed goes with its last record."""
        answer = json.loads(data)
        return json.dumps(answer | {"Shards": [
            shard for shard in answer["Shards"]
            if int(shard["SequenceNumberRange"].get("EndingSequenceNumber", self.expired + 1)) > self.expired]}).encode()

    def keep(self, asked):
        """Each so-manieth record is not passed on."""
        failed, records = [], []
        with self.lock:
            for record in asked["Records"]:
                self.counted += 1
                failed.append(self.counted % self.failing == 0)
                if not failed[-1]:
                    records.append(record)
        return (json.dumps(asked | {"Records": records}).encode() if records else b"", failed)

    def put_back(self, data, failed):
        told = iter(json.loads(data)["Records"] if data else [])
        records = [{"ErrorCode": THROTTLED, "ErrorMessage": "the front fails it"} if lost else next(told) for lost in failed]
        return json.dumps({"FailedRecordCount": sum(failed), "Records": records}).encode()

    def ask(self, action, body, headers):
        if not body:
            return 200, b""
        connection = http.client.HTTPConnection(HOST, self.server_port)
        try:
            connection.request("POST", "/", body, {name: value for name, value in headers.items()
                                                   if name.lower() not in ("content-length", "connection", "expect")})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except ConnectionRefusedError:
            return 503, b'{"__type":"ServiceUnavailable","message":"the server is away"}'
        finally:
            connection.close()
