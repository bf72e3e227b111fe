"""The real nginx with the project's own configuration, on free loopback ports, in front of a server."""

from __future__ import annotations

import datetime
import ipaddress
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tests.support.tracking import free_port
from tests.support.typed import ROOT

_MAIN = """daemon off;
pid {at}/nginx.pid;
error_log {at}/error.log warn;
{user}
events {{ worker_connections 512; }}
http {{
    {temporary}
    include {at}/rounds.conf;
}}
"""
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@dataclass
class Proxy:
    """A proxy that listens: its addresses, the certificate to trust, its process and its log of requests."""

    url: str
    plain: str
    certificate: Path
    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def nginx(at: Path, *upstreams: int) -> Iterator[Proxy]:
    """Serve the ports behind deploy/nginx/rounds.conf until the block ends; skipped where there is no nginx."""
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    if not Path(program).exists():
        pytest.skip("no nginx here: apt-get install nginx-light")
    at.mkdir(parents=True, exist_ok=True)
    secure, plain = free_port(), free_port()
    certify(at)
    text = (ROOT / "deploy/nginx/rounds.conf").read_text()
    line = "    server 127.0.0.1:8000 max_fails=2 fail_timeout=2s;\n"
    assert line in text
    changes = {
        line: "".join(line.replace("8000", str(port)) for port in upstreams),
        "listen 80;": f"listen 127.0.0.1:{plain};",
        "listen 443 ": f"listen 127.0.0.1:{secure} ",
        "/etc/rounds/tls/": f"{at}/",
        "/var/log/nginx/": f"{at}/",
    }
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    (at / "rounds.conf").write_text(text)
    temporary = " ".join(f"{name}_temp_path {at}/{name};" for name in _TEMPORARY)
    user = "user root;" if at.owner() == "root" else ""
    (at / "nginx.conf").write_text(_MAIN.format(at=at, temporary=temporary, user=user))
    command = [program, "-p", str(at), "-c", str(at / "nginx.conf")]
    tried = subprocess.run([*command, "-t"], capture_output=True, text=True)
    assert tried.returncode == 0, tried.stderr
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    proxy = Proxy(
        f"https://127.0.0.1:{secure}", f"http://127.0.0.1:{plain}", at / "fullchain.pem", process, at / "rounds.log"
    )
    try:
        _await(proxy)
        yield proxy
    finally:
        process.terminate()
        process.wait(10)


def certify(at: Path) -> None:
    """Make a self-signed certificate for 127.0.0.1 that lasts a day."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "rounds test")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (at / "fullchain.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    forms = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (at / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *forms))


def _await(proxy: Proxy) -> None:
    until = time.monotonic() + 10
    while True:
        try:
            httpx.get(proxy.plain)
            return
        except httpx.TransportError:
            assert proxy.process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
