"""Images of the in-memory Modal server: what their layers install and set, done on this machine."""

import shlex
from pathlib import Path

from tests.support import environments

UV = "/.uv/uv pip install --python $(command -v python) --compile-bytecode "


class Image:
    """What a chain of layers makes: a Python environment, and variables of the environment."""

    def __init__(self, layers):
        """Read the layers, the lowest first; what the base image brings is there already."""
        self.name, self.installs, self.variables = "image", [], {}
        for layer in layers:
            files = {file.filename: file.data for file in layer.context_files}
            base = not layer.base_images
            for line in layer.dockerfile_commands:
                self._read(line, files, base)

    def _read(self, line, files, base):
        keyword, _, rest = line.partition(" ")
        if keyword == "FROM" and base:
            self.python = ".".join(rest.removeprefix("python:").split(".")[:2])
        elif keyword == "ENV":
            self.variables |= dict(word.split("=", 1) for word in shlex.split(rest))
        elif keyword == "COPY" and not rest.startswith("--from"):
            source, target = rest.split()
            files[target] = files[source]
        elif keyword == "RUN" and rest.startswith(UV):
            words = shlex.split(rest.removeprefix(UV))
            self.name = next((Path(word).stem for word in words if word in files), self.name)
            self.installs.append([files.get(word, word) for word in words])
        elif not base and keyword not in ("FROM", "COPY", "CMD"):
            raise NotImplementedError(f"the in-memory Modal server cannot do this: {line}")

    def environment(self):
        """Return the folder of a virtual environment that has what was installed into the image."""
        return environments.environment(self.name, self.python, *self.installs)
