"""Puts compiled kernels into the wheel where they can be compiled; elsewhere it stays pure.

hatchling runs this whenever a wheel is built. `HATCH_BUILD_NO_HOOKS=true` gives the pure wheel
anywhere.
"""

import importlib.util
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_NATIVE = "hocket/server/model/native"
_PACKAGED_COMPILER = "ziglang>=0.16"


class KernelsHook(BuildHookInterface[Any]):
    """Compiles the kernels for a wheel on Linux and x86-64, if there is a compiler."""

    _scratch: TemporaryDirectory[str] | None = None

    def dependencies(self) -> list[str]:
        """Return a compiler that is a package where the machine has none."""
        compiler = self._compiler()
        return [_PACKAGED_COMPILER] if compiler.is_target() and compiler.find() is None else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the compiled kernels and the tag of their platform; editable installs stay as is."""
        if version == "editable":
            return
        compiler = self._compiler()
        found = compiler.find()
        if found is None or not compiler.is_target():
            self.app.display_info(
                "A wheel without compiled kernels: no compiler, or another platform"
            )
            return
        self._scratch = TemporaryDirectory()
        try:
            library = compiler.compile_kernels(found, Path(self._scratch.name))
        except compiler.CompileError as error:
            self.app.display_warning(f"A wheel without compiled kernels: {error}")
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{found.platform}"
        build_data["force_include"][str(library)] = f"{_NATIVE}/prebuilt/{library.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled: the wheel has it."""
        del version, build_data, artifact_path
        if self._scratch is not None:
            self._scratch.cleanup()

    def _compiler(self) -> ModuleType:
        return _load(Path(self.root, "server", _NATIVE, "compiler.py"))


def _load(file: Path) -> ModuleType:
    """Import a file that is not installed.

    Raises:
        ImportError: It is no module.
    """
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
