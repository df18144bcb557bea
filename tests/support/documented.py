"""The commands of the program in the documentation and the configs."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path.relative_to(ROOT) for path in (ROOT / "configs").glob("*.py"))
PROGRAM = "python -m alexnet_jax.main "


def documented() -> Iterator[tuple[str, str]]:
    """Yields (file, arguments) of every command in the docs and the configs."""
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for block in re.findall(r"^```(?:bash|sh|shell)\n(.*?)^```", path.read_text(), re.M | re.S):
            for line in block.replace("\\\n", " ").splitlines():
                if PROGRAM in line:
                    yield path.name, line.partition(PROGRAM)[2]
    for path in CONFIGS:
        for line in (ast.get_docstring(ast.parse((ROOT / path).read_text())) or "").splitlines():
            if PROGRAM in line:  # two spaces separate the command from its explanation
                yield path.name, line.partition(PROGRAM)[2].partition("  ")[0]


def split_command(text: str) -> list[str]:
    """Splits a command as a shell does, up to a pipe, a redirection or the next command."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    args = []
    for arg in lexer:
        if set(arg) <= set("|&;<>"):
            break
        args.append(arg)
    return args
