"""TLS: who is let in, who is not, and what a server says of files that it cannot use."""

import asyncio
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from hocket.client import NO_RETRIES, AsyncClient, Tls, TransportError
from hocket.server.app import App
from hocket.server.errors import StartupError
from hocket.server.testing.scripted_runner import echo
from hocket.server.testing.serving import ScriptedModel, loopback_settings, serving

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificates")

ADDRESS = "subjectAltName=IP:127.0.0.1"


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@dataclass(frozen=True)
class Identity:
    """A certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates, in a folder of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self.identity = Identity(folder / f"{name}.pem", folder / f"{name}.key")
        openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", self.identity.key, "-out", self.identity.certificate,
            "-days", "2", "-subj", f"/CN={name}",
        )  # fmt: skip

    def sign(self, name: str, extension: str) -> Identity:
        signed = Identity(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        extensions.write_text(extension + "\n")
        openssl(
            "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", signed.key, "-out", request, "-subj", f"/CN={name}",
        )  # fmt: skip
        openssl(
            "x509", "-req", "-in", request, "-CA", self.identity.certificate,
            "-CAkey", self.identity.key, "-CAcreateserial", "-days", "2",
            "-extfile", extensions, "-out", signed.certificate,
        )  # fmt: skip
        return signed


@dataclass(frozen=True)
class World:
    """An authority that all trust, one that nobody does, and whom they have signed for."""

    authority: Authority
    stranger: Authority
    server: Identity
    elsewhere: Identity
    caller: Identity
    impostor: Identity


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    folder = tmp_path_factory.mktemp("tls")
    authority, stranger = Authority(folder, "authority"), Authority(folder, "stranger")
    return World(
        authority,
        stranger,
        server=authority.sign("server", ADDRESS),
        elsewhere=authority.sign("elsewhere", "subjectAltName=DNS:elsewhere.test"),
        caller=authority.sign("caller", "extendedKeyUsage=clientAuth"),
        impostor=stranger.sign("impostor", "extendedKeyUsage=clientAuth"),
    )


def secured(identity: Identity, authority: Authority | None = None, **listener: object):
    """Return settings of a server that bears this identity, and asks for one if told by whom."""
    files = {"tls_certificate": str(identity.certificate), "tls_key": str(identity.key)}
    if authority is not None:
        files["tls_client_ca"] = str(authority.identity.certificate)
    return loopback_settings(listener={**files, **listener})


def trusting(authority: Authority, bearing: Identity | None = None, name: str | None = None) -> Tls:
    return Tls(
        root_certificates=authority.identity.certificate.read_bytes(),
        certificate_chain=bearing.certificate.read_bytes() if bearing else None,
        private_key=bearing.key.read_bytes() if bearing else None,
        server_name=name,
    )


async def ask(app: App, tls: Tls | None) -> str:
    async with AsyncClient(app.address, tls=tls, retry=NO_RETRIES) as client:
        return (await client.generate("hi", timeout=20)).text


async def assert_refused(app: App, tls: Tls | None) -> None:
    with pytest.raises(TransportError):
        await ask(app, tls)
    assert app._admission.statistics().connections == 0


ANSWER = echo(b"hi").decode()


async def test_a_caller_that_trusts_the_authority_is_served(world):
    async with serving(settings=secured(world.server)) as app:
        assert await ask(app, trusting(world.authority)) == ANSWER


@pytest.mark.parametrize(
    "tls",
    [
        lambda world: trusting(world.stranger),
        lambda world: trusting(world.authority, name="elsewhere.test"),
        lambda _: None,
    ],
    ids=["wrong authority", "wrong name", "clear text"],
)
async def test_a_caller_that_cannot_be_sure_turns_away(world, tls: Callable[[World], Tls | None]):
    """And the server goes on for others."""
    async with serving(settings=secured(world.server)) as app:
        await assert_refused(app, tls(world))
        assert await ask(app, trusting(world.authority)) == ANSWER


async def test_the_name_is_the_one_that_the_caller_expects(world):
    async with serving(settings=secured(world.elsewhere)) as app:
        await assert_refused(app, trusting(world.authority))
        assert await ask(app, trusting(world.authority, name="elsewhere.test")) == ANSWER


async def test_a_caller_with_a_certificate_of_the_authority_is_served(world):
    async with serving(settings=secured(world.server, world.authority)) as app:
        assert await ask(app, trusting(world.authority, world.caller)) == ANSWER


@pytest.mark.parametrize("bearing", ["nothing", "impostor"])
async def test_a_caller_without_a_certificate_of_the_authority_is_not(world, bearing):
    shown = {"nothing": None, "impostor": world.impostor}[bearing]
    async with serving(settings=secured(world.server, world.authority)) as app:
        await assert_refused(app, trusting(world.authority, shown))
        assert await ask(app, trusting(world.authority, world.caller)) == ANSWER


async def test_other_addresses_are_served_with_tls(world):
    settings = secured(world.server, address="0.0.0.0:0")
    async with serving(settings=settings) as app:
        _, _, port = app.address.rpartition(":")
        client = AsyncClient(f"127.0.0.1:{port}", tls=trusting(world.authority), retry=NO_RETRIES)
        async with client:
            assert (await client.generate("hi")).text == ANSWER


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "example.test:0", ":0"])
async def test_other_addresses_are_refused_without_tls(address):
    message = await why_not(loopback_settings(listener={"address": address}))
    assert f"{address} is not a loopback address" in message
    assert "listener.allow_insecure" in message


async def test_a_socket_file_needs_no_tls(tmp_path):
    address = f"unix:{tmp_path / 'hocket.sock'}"
    async with serving(settings=loopback_settings(listener={"address": address})) as app:
        assert app.address == address
        assert await ask(app, None) == ANSWER


async def why_not(settings) -> str:
    """Return why a server cannot start; it is one line."""
    loads = []
    app = App(settings, load=lambda *_: loads.append(1) or ScriptedModel())
    with pytest.raises(StartupError) as caught:
        await app.run()
    assert loads == []  # before anything that takes time
    assert caught.value.exit_code == 1
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def _encrypted(world: World, folder: Path) -> str:
    path = folder / "encrypted.key"
    openssl("ec", "-aes256", "-passout", "pass:secret", "-in", world.server.key, "-out", path)
    return str(path)


def _garbage(_: World, folder: Path) -> str:
    path = folder / "garbage"
    path.write_bytes(b"-----BEGIN CERTIFICATE-----\n\xff\xfe not PEM\n")
    return str(path)


def _empty(_: World, folder: Path) -> str:
    (folder / "empty").touch()
    return str(folder / "empty")


def _absent(_: World, folder: Path) -> str:
    return str(folder / "absent")


def _folder(_: World, folder: Path) -> str:
    return str(folder)


BAD = [
    ("tls_certificate", _absent, "cannot be read"),
    ("tls_certificate", _folder, "cannot be read"),
    ("tls_certificate", _garbage, "not a certificate chain"),
    ("tls_certificate", _empty, "not a certificate chain"),
    ("tls_certificate", lambda world, _: str(world.elsewhere.certificate), "its private key"),
    ("tls_certificate", lambda world, _: str(world.server.key), "not a certificate chain"),
    ("tls_certificate", lambda *_: "", "go together"),
    ("tls_key", _absent, "cannot be read"),
    ("tls_key", _garbage, "its private key"),
    ("tls_key", _empty, "its private key"),
    ("tls_key", _encrypted, "in clear text"),
    ("tls_key", lambda *_: "", "go together"),
    ("tls_client_ca", _absent, "cannot be read"),
    ("tls_client_ca", _garbage, "holds no certificate"),
    ("tls_client_ca", _empty, "holds no certificate"),
    ("tls_client_ca", lambda world, _: str(world.server.key), "holds no certificate"),
]


@pytest.mark.parametrize(("field", "file", "words"), BAD)
async def test_files_that_cannot_be_used_are_told_in_one_line(world, tmp_path, field, file, words):
    path = file(world, tmp_path)
    message = await why_not(secured(world.server, world.authority, **{field: path}))
    assert words in message
    assert path in message


async def test_authorities_of_callers_alone_are_not_enough(world):
    """Or a server that should ask for certificates would listen in clear text."""
    settings = loopback_settings(
        listener={"tls_client_ca": str(world.authority.identity.certificate)}
    )
    assert "listener.tls_certificate" in await why_not(settings)


async def test_a_taken_port_is_told_with_tls_as_well(world):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        message = await why_not(secured(world.server, address=address))
    assert f"cannot listen on {address}" in message


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize("field", ["tls_certificate", "tls_key", "tls_client_ca"])
async def test_the_process_says_one_line_and_leaves_with_1(world, tmp_path, field):
    files = {
        "tls_certificate": world.server.certificate,
        "tls_key": world.server.key,
        "tls_client_ca": world.authority.identity.certificate,
        field: _garbage(world, tmp_path),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hocket.server", "--address", "127.0.0.1:0",
        "--set", "metrics.enabled=false",
        *(f"--set=listener.{name}={path}" for name, path in files.items()),
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    _, errors = await process.communicate()
    assert process.returncode == 1
    (line,) = errors.decode().splitlines()
    assert line.startswith("hocket serve: the TLS file")
    assert str(files[field]) in line
