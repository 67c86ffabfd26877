"""What `import hocket.client` brings, and what it does not."""

import subprocess
import sys

import grpc
import pytest

from hocket import client
from hocket.client._channel import channel_options, service_config

_SCRIPT = """
import sys

class BaseInstall:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in {"hocket", "grpc", "google", "typing_extensions"} | set(sys.stdlib_module_names):
            if not name.startswith("hocket.server"):
                return None
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, BaseInstall())
import hocket.client
import hocket.client.__main__
hocket.client.Client("127.0.0.1:1")
print(hocket.client.__main__.main(["serve"]))
"""


def test_the_base_install_is_enough() -> None:
    """With nothing but grpcio and protobuf the client works, and names what is missing."""
    process = subprocess.run(
        [sys.executable, "-I", "-c", _SCRIPT], capture_output=True, text=True, check=True
    )
    assert process.stdout == "2\n"
    assert 'pip install "hocket[server]"' in process.stderr
    assert "Traceback" not in process.stderr


def test_every_public_name_is_there() -> None:
    """`__all__` is sorted, without repetition, and true."""
    assert sorted(set(client.__all__)) == sorted(client.__all__)
    assert [name for name in client.__all__ if not hasattr(client, name)] == []


def test_no_protobuf_leaks_out() -> None:
    """No public name is of the wire format's modules."""
    modules = {
        getattr(getattr(client, name), "__module__", "hocket.client") for name in client.__all__
    }
    assert {m for m in modules if m.startswith(("hocket.v1", "google"))} == set()


async def test_the_service_config_is_accepted_by_grpc(server) -> None:
    """GRPC refuses a channel's calls when it cannot parse the config."""
    server.health["readiness"] = [1]
    for policy in ("pick_first", "weighted_round_robin"):
        assert "retryPolicy" in service_config(policy)
        async with client.AsyncClient(server.address, load_balancing=policy) as opened:
            assert (await opened.generate("x", timeout=10)).text == "One. Two."


def test_given_options_win() -> None:
    """The caller's channel options come last."""
    extra = [("grpc.keepalive_time_ms", 1), ("grpc.mine", "x")]
    options = dict(channel_options(load_balancing="pick_first", tls=None, extra=extra))
    assert (options["grpc.keepalive_time_ms"], options["grpc.mine"]) == (1, "x")
    assert options["grpc.enable_retries"] == 0


def test_credentials_are_given_once() -> None:
    """TLS options and ready credentials exclude one another."""
    with pytest.raises(ValueError, match="not both"):
        client.Client("x:1", tls=client.Tls(), credentials=grpc.ssl_channel_credentials())
