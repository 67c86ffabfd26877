"""Generate the checked-in stubs from `proto/`, or check that they are fresh.

    python tools/protos.py            write the stubs
    python tools/protos.py --check    compare with what is checked in; exit 1 if stale
    python tools/protos.py --lint     buf lint, format and, once there is a release, breaking

A release leaves its contract in `proto/released.binpb`; `buf build -o` writes it.

The compiler is pinned and old on purpose: generated code refuses to run on a
protobuf older than its compiler. It lives in an environment of its own because
its own protobuf differs from the one the project runs on.
"""

import argparse
import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
ENVIRONMENT = ROOT / ".venv-protos"
REQUIREMENTS = ["grpcio-tools==1.74.0", "mypy-protobuf==5.1.0", "protobuf==6.33.6", "setuptools<81"]
SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")


def googleapis() -> Path:
    """Return the folder that holds `google/rpc/*.proto`, from the installed package."""
    from google.rpc import status_pb2  # noqa: PLC0415 - only wanted once the package is installed

    return Path(status_pb2.__file__).parent.parent.parent


def compiler() -> Path:
    """Return the Python that has the pinned compiler, making its environment first if need be."""
    python = ENVIRONMENT / "bin" / "python"
    marker = ENVIRONMENT / "requirements.txt"
    wanted = "\n".join(REQUIREMENTS)
    if not (marker.exists() and marker.read_text() == wanted):
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        # The project's own pins must not reach this environment: its protobuf is another one.
        environment = {key: value for key, value in os.environ.items() if key != "PIP_CONSTRAINT"}  # noqa: TID251
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True, env=environment
        )
        marker.write_text(wanted)
    return python


def generate(target: Path) -> None:
    """Write the stubs of every proto file below `target`."""
    python = compiler()
    sources = sorted(str(path) for path in PROTO.glob("hocket/v1/*.proto"))
    plugins = [
        f"--plugin=protoc-gen-{name}={ENVIRONMENT / 'bin' / f'protoc-gen-{name}'}"
        for name in ("mypy", "mypy_grpc")
    ]
    subprocess.run(
        [
            python, "-m", "grpc_tools.protoc", f"-I{PROTO}", f"-I{googleapis()}", *plugins,
            f"--python_out={target}", f"--grpc_python_out={target}",
            f"--mypy_out=quiet:{target}", f"--mypy_grpc_out=quiet,only_async:{target}",
            *sources,
        ],
        check=True,
    )  # fmt: skip
    for path in (target / "hocket" / "v1").glob("*_pb2_grpc.py*"):
        service = path.name.split("_pb2_grpc")[0]
        if "service " not in (PROTO / "hocket" / "v1" / f"{service}.proto").read_text():
            path.unlink()  # a file without services needs no gRPC stubs


def stubs(folder: Path) -> set[str]:
    """Return the names of the generated files in a folder."""
    return {path.name for path in folder.iterdir() if path.name.endswith(SUFFIXES)}


def check() -> int:
    """Compare fresh stubs with those checked in."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh, kept = Path(folder) / "hocket" / "v1", PROTO / "hocket" / "v1"
        names = stubs(fresh) | stubs(kept)
        stale = [
            name
            for name in sorted(names)
            if not ((fresh / name).exists() and (kept / name).exists())
            or not filecmp.cmp(fresh / name, kept / name, shallow=False)
        ]
    for name in stale:
        print(f"stale: proto/hocket/v1/{name}; run `make proto`", file=sys.stderr)
    return 1 if stale else 0


def buf(*arguments: str, folder: Path) -> int:
    """Run buf in a folder and return its exit code."""
    return subprocess.run(
        [Path(sys.executable).with_name("buf"), *arguments], cwd=folder, check=False
    ).returncode


def lint() -> int:
    """Run buf's lint and format checks, and `breaking` against the last release's contract."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(PROTO, folder / "proto", ignore=shutil.ignore_patterns("*.py*"))
        target = folder / "googleapis" / "google" / "rpc"
        target.mkdir(parents=True)
        for proto in ("status.proto", "error_details.proto"):
            shutil.copy(googleapis() / "google" / "rpc" / proto, target)
        rules = (ROOT / "buf.yaml").read_text()
        shared = rules.replace(
            "modules:\n",
            "modules:\n  - path: googleapis\n    lint:\n      ignore: [googleapis]\n",
            1,
        )
        (folder / "buf.yaml").write_text(shared)
        codes = [
            buf("lint", "--path", "proto/hocket", folder=folder),
            buf("format", "--diff", "--exit-code", "--path", "proto/hocket", folder=folder),
        ]
        image = ROOT / "proto" / "released.binpb"
        if image.exists():
            codes.append(
                buf("breaking", "--path", "proto/hocket", "--against", str(image), folder=folder)
            )
    return max(codes)


def main() -> int:
    """Run as a command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--check", action="store_true")
    group.add_argument("--lint", action="store_true")
    arguments = parser.parse_args()
    if arguments.check:
        return check()
    if arguments.lint:
        return lint()
    generate(PROTO)
    return 0


if __name__ == "__main__":
    sys.exit(main())
