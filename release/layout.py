"""Writes release/layout.ld, by which the linker puts together what every start of Doorward runs, and after it what every call
runs: `make layout`, which needs valgrind, some seconds, and no quiet machine.

To be made anew when much has changed. The names are patterns without the hashes that a compiler puts into them, so that
other compilers, versions and targets lay the program out in the same way.
"""

import datetime
import re
import socket
import subprocess
import sys
import tempfile
import time
from concurrent import futures
from pathlib import Path

import grpc
import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

CONFIGURATION = """
workers: 1
listen: {{ address: "127.0.0.1:{port}", tls: {{ certificate: tls.crt, private_key: tls.key }} }}
operations: {{ address: 127.0.0.1:0 }}
upstream: {{ address: "http://127.0.0.1:{upstream}" }}
authentication:
  jwt:
    - {{ name: corporate, issuer: https://issuer.test/, audiences: [users-api], algorithms: [RS256], public_key_file: rsa.pub }}
authorization:
  roles: {{ viewer: [echo:call] }}
  methods: {{ /demo.v1.Echo/Unary: echo:call }}
"""

HEAD = """/* Made by release/layout.py. What every start runs, then what every call runs. */
SECTIONS {
  .text.first : {
"""
TAIL = """  }
} INSERT BEFORE .text;
"""


class Echo(grpc.GenericRpcHandler):
    def service(self, call):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: request)


class Site:
    """A folder with what Doorward needs, a service, and a token."""

    def __init__(self, folder):
        self.folder = folder
        self.service = grpc.server(futures.ThreadPoolExecutor(2), handlers=(Echo(),))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        text = CONFIGURATION.format(port=self.port, upstream=self.service.add_insecure_port("127.0.0.1:0"))
        (folder / "doorward.yaml").write_text(text)
        self.service.start()
        self.certificate = self.make_certificate()
        key = rsa.generate_private_key(65537, 2048)
        public = serialization.PublicFormat.SubjectPublicKeyInfo
        (folder / "rsa.pub").write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, public))
        claims = {"iss": "https://issuer.test/", "aud": "users-api", "sub": "alice", "roles": ["viewer"], "exp": int(time.time()) + 3600}
        self.token = jwt.encode(claims, key, algorithm="RS256")

    def make_certificate(self):
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
        today = datetime.datetime.now(datetime.timezone.utc)
        builder = x509.CertificateBuilder(name, name, key.public_key(), 1, today, today + datetime.timedelta(days=1))
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        certificate = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (self.folder / "tls.key").touch(mode=0o600)
        (self.folder / "tls.key").write_bytes(key.private_bytes(*form))
        (self.folder / "tls.crt").write_bytes(certificate)
        return certificate

    def call(self):
        """Once Doorward is there."""
        credentials = grpc.ssl_channel_credentials(self.certificate)
        options = (("grpc.ssl_target_name_override", "localhost"),)
        with grpc.secure_channel(f"127.0.0.1:{self.port}", credentials, options) as channel:
            method = channel.unary_unary("/demo.v1.Echo/Unary")
            for _ in range(3):
                method(b"hello", timeout=60, wait_for_ready=True, metadata=[("authorization", f"Bearer {self.token}")])

    def functions(self, binary, work):
        """The functions that `binary` runs from its start until `work` is done."""
        out = self.folder / "callgrind"
        valgrind = ["valgrind", "--quiet", "--tool=callgrind", "--demangle=no", f"--callgrind-out-file={out}"]
        run = [binary, "run", "--config", self.folder / "doorward.yaml"]
        process = subprocess.Popen([*valgrind, *run], stdout=subprocess.DEVNULL)
        try:
            work()
        finally:
            process.terminate()
            process.wait()
        return {pattern(name) for name in functions_of(binary.name, out.read_text().splitlines())}

    def come_up(self):
        """And find the service there, and nothing more to do."""
        for _ in range(60):
            time.sleep(1)
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return time.sleep(10)
        sys.exit("layout: Doorward does not listen")


def functions_of(program, lines):
    """Those of `program` that have costs of their own. Names are written out where they come first: `fn=(7) main`."""
    names, in_program = {}, {}
    inside = False
    for line in lines:
        if not (found := re.match(r"(c?)(ob|fn)=\((\d+)\)(?: (.*))?", line)):
            continue
        called, kind, number, text = found.groups()
        if kind == "ob":
            if text:
                in_program[number] = Path(text).name == program
            if not called:
                inside = in_program[number]
        else:
            if text:
                # Recursion is counted: `main'2`.
                names[number] = text.partition("'")[0]
            if not called and inside:
                yield names[number]


def pattern(name):
    """A pattern of the linker's for a function, whatever hashes it is given."""
    name = re.sub(r"17h[0-9a-f]{16}E.*", "17h*", name)
    name = re.sub(r"\.llvm\.\d+$", "*", name)
    return re.sub(r"Cs[0-9A-Za-z]+_", "Cs*_", name) if name.startswith("_R") else name


def section(patterns):
    # `.text.NAME`, or `.text.unlikely.NAME` where the compiler holds it for cold. No name: an address that has no symbol.
    lines = [f"      .text*.{name}\n" for name in sorted(patterns) if re.fullmatch(r"[A-Za-z_][\w$.*]+", name)]
    return "    *(\n" + "".join(lines) + "    )\n"


def main():
    binary = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder))
        start = site.functions(binary, site.come_up)
        call = site.functions(binary, site.call) - start
    (Path(__file__).parent / "layout.ld").write_text(HEAD + section(start) + section(call) + TAIL)
    print(f"{len(start)} functions of a start, {len(call)} more of a call")


if __name__ == "__main__":
    main()
