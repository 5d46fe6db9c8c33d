"""The Redis engine over TLS, with certificates of an authority that the test made."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from penstock.engine import AddRequest, WorkerInfo
from penstock.engines.open import examine, is_there, open_engine
from penstock.model.errors import EngineBusy, EngineDown, EngineUnknown
from penstock.testing.conformance.trial import P1, change, new_job, want
from tests.servers.redis import RedisServer


class Authority:
    """An authority with one certificate, for 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.ca, self.cert, self.key = (folder / f"{name}.pem" for name in ("ca", "cert", "key"))
        self._folder = folder
        key = ("-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout")
        self._openssl("req", "-x509", "-subj", "/CN=authority", "-days", "2", *key, "ca-key.pem", "-out", "ca.pem")
        self._openssl("req", "-subj", "/CN=server", *key, "key.pem", "-out", "request.pem")
        (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
        signed_by = ("-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "2", "-extfile", "names")
        self._openssl("x509", "-req", "-in", "request.pem", *signed_by, "-out", "cert.pem")

    def _openssl(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self._folder, check=True, capture_output=True, timeout=60)


class TlsServer(RedisServer):
    """A server that takes TLS only."""

    def __init__(self, folder: Path, authority: Authority, **settings: str) -> None:
        files = {"tls_cert_file": authority.cert, "tls_key_file": authority.key, "tls_ca_cert_file": authority.ca}
        super().__init__(folder, **{name: str(path) for name, path in files.items()}, **settings)
        self._authority = authority

    def command(self) -> list[str]:
        words = [*super().command(), "--tls-port", str(self.port)]
        words[words.index("--port") + 1] = "0"
        return words

    @property
    def url(self) -> str:
        return f"rediss://127.0.0.1:{self.port}/0"

    def client(self) -> "redis.Redis":
        files = {"ssl_ca_certs": self._authority.ca, "ssl_certfile": self._authority.cert}
        more = {name: str(path) for name, path in files.items()}
        return redis.Redis(
            "127.0.0.1", self.port, ssl=True, ssl_keyfile=str(self._authority.key), **more, socket_timeout=5
        )


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "authority")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[TlsServer]:
    server = TlsServer(tmp_path_factory.mktemp("server"), authority, tls_auth_clients="no")
    server.start()
    yield server
    server.kill()


def test_server_with_a_certificate_of_a_private_authority_is_worked_with(
    server: TlsServer, authority: Authority
) -> None:
    url = f"{server.url}?tls_ca={authority.ca}"
    engine = open_engine(url)
    engine.enrol(WorkerInfo(id="w1"), [P1])
    engine.add([AddRequest((new_job("a"),))])
    [claim] = engine.exchange(P1, 1, (), want()).claims
    assert engine.exchange(P1, 2, [change(claim)], None).late == ()
    assert engine.describe().url == server.url
    assert is_there(url)
    assert examine(url).exists


def test_certificate_of_an_authority_that_is_not_trusted_is_refused(server: TlsServer) -> None:
    with pytest.raises(
        EngineDown, match=r"not trusted: self-signed certificate in certificate chain.*\?tls_ca=/path/ca\.pem"
    ):
        open_engine(server.url).counts()
    [finding] = examine(server.url).findings
    assert (finding.verdict, "not trusted" in finding.found) == ("fault", True)


def test_certificate_for_another_host_is_refused(server: TlsServer, authority: Authority) -> None:
    elsewhere = server.url.replace("127.0.0.1", "localhost")
    with pytest.raises(EngineDown, match="not trusted: Hostname mismatch"):
        open_engine(f"{elsewhere}?tls_ca={authority.ca}").counts()


def test_authority_from_the_environment_is_trusted(
    server: TlsServer, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    open_engine(server.url).counts()


def test_files_that_are_no_certificates_are_named(server: TlsServer, tmp_path: Path) -> None:
    (tmp_path / "junk.pem").write_text("junk")
    for option in (f"tls_ca={tmp_path}/none.pem", f"tls_ca={tmp_path}/junk.pem", f"tls_cert={tmp_path}/junk.pem"):
        with pytest.raises(EngineDown, match=option.partition("=")[2]):
            open_engine(f"{server.url}?{option}").counts()


def test_server_that_asks_for_a_certificate_is_shown_one(tmp_path: Path, authority: Authority) -> None:
    server = TlsServer(tmp_path, authority)
    server.start()
    try:
        trusting = f"{server.url}?tls_ca={authority.ca}"
        open_engine(f"{trusting}&tls_cert={authority.cert}&tls_key={authority.key}").counts()
        with pytest.raises(EngineDown, match=r"TLS.*tls_cert="):
            open_engine(trusting).counts()
    finally:
        server.kill()


def test_port_without_tls_is_told_from_one_with_it(redis_server: RedisServer, server: TlsServer) -> None:
    with pytest.raises(EngineBusy, match=r"TLS within 0.3 s. Write redis://"):
        open_engine(redis_server.url.replace("redis:", "rediss:") + "?timeout=300ms").counts()
    with pytest.raises(EngineDown, match="rediss://"):
        open_engine(server.url.replace("rediss:", "redis:")).counts()


def test_files_of_tls_without_tls_are_refused(redis_server: RedisServer) -> None:
    with pytest.raises(EngineUnknown, match="tls_ca"):
        open_engine(f"{redis_server.url}?tls_ca=/ca.pem")
