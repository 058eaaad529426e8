"""What pyproject.toml cannot say: recipes, their schema and examples, which lie beside ``src/`` in the project, go into
the wheel as ``classroomkd/shipped/``. An editable installation reads them where they are."""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
SHIPPED = ("recipes", "examples")


class BuildWithShipped(build_py):
    """Copies what is shipped beside the modules."""

    def run(self) -> None:
        """Build the modules, then copy."""
        super().run()
        if self.editable_mode:
            return
        for source, target in self._copies():
            self.mkpath(str(target.parent))
            self.copy_file(str(source), str(target), preserve_mode=False)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Every file that is built."""
        copies = [] if self.editable_mode else [str(target) for _, target in self._copies()]
        return [*super().get_outputs(include_bytecode), *copies]

    def _copies(self) -> list[tuple[Path, Path]]:
        into = Path(self.build_lib) / "classroomkd" / "shipped"
        files = [file for folder in SHIPPED for file in sorted((HERE / folder).rglob("*")) if file.is_file()]
        kept = [file.relative_to(HERE) for file in files if "__pycache__" not in file.parts]
        return [(file, into / file) for file in kept]


setup(cmdclass={"build_py": BuildWithShipped})
