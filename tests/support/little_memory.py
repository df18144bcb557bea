"""Program: reads weight files with little memory; prints a line for each: its name, its error."""

import resource
import sys
from pathlib import Path

from alexnet_jax import weights
from alexnet_jax.errors import InputError

MARGIN = 2**30


def main() -> None:
    for name in weights.FORMATS:
        weights.module_of(name)
    import onnx  # noqa: F401

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MARGIN,) * 2)
    for path in sys.argv[1:]:
        try:
            weights.read(Path(path), weights.ReadOptions(partial=True, model="torchvision"))
        except InputError as caught:
            error: BaseException | None = caught
            while error is not None and not isinstance(error, MemoryError):
                error = error.__cause__ or error.__context__
            print(path, "takes the memory" if error else caught, sep="\t", flush=True)
        else:
            print(path, "is read", sep="\t", flush=True)


if __name__ == "__main__":
    main()
