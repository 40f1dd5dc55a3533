"""A time stamp authority (RFC 3161) on 127.0.0.1, by openssl."""

from __future__ import annotations

import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.programs import need

CONFIG = """
[tsa]
default_tsa = here
[here]
serial = {folder}/serial
signer_cert = {folder}/cert.pem
signer_key = {folder}/key.pem
default_policy = 1.2.3.4.1
digests = sha256, sha384, sha512
signer_digest = sha256
accuracy = secs:1
[request]
distinguished_name = name
prompt = no
x509_extensions = usage
[name]
CN = time stamps of the tests
[usage]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always
"""


@contextmanager
def authority(folder):
    """Its URL."""
    openssl, config = need("openssl"), folder / "openssl.cnf"
    config.write_text(CONFIG.format(folder=folder))
    (folder / "serial").write_text("01\n")
    make = [
        *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-section"),
        *("request", "-config", config, "-days", "2", "-keyout", folder / "key.pem"),
        *("-out", folder / "cert.pem"),
    ]
    subprocess.run(make, check=True, capture_output=True)

    class Handler(BaseHTTPRequestHandler):
        """Answers each query."""

        def do_POST(self):
            (folder / "query").write_bytes(
                self.rfile.read(int(self.headers["Content-Length"]))
            )
            reply = [openssl, "ts", "-reply", "-config", config]
            reply += ["-queryfile", folder / "query"]
            done = subprocess.run(reply, check=True, capture_output=True)
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.send_header("Content-Length", str(len(done.stdout)))
            self.end_headers()
            self.wfile.write(done.stdout)

        def log_message(self, *_):
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
