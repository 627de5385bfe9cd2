"""Circles of modules in a crate; part of `check-house`.

A module and everything below it is one unit. Of the units below one parent, none may use another that uses it, over
however many others. A parent and what is below it may use each other: they are one unit to everybody else. So a
module can be read with what it uses, and without what uses it.

A path counts for the module that defines the last item in it, also where others re-export it. Tests do not count.
Read are paths in code and in `use`; a method called on a value names no module, but its type does somewhere.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, field

Path = tuple[str, ...]

TEST = re.compile(r"#\s*\[\s*cfg\s*\(\s*(?:all\s*\(\s*)?test\b[^\]]*\]|#\s*\[\s*(?:\w+::)?test\s*\]")
USE = re.compile(r"\buse\s+([^;]+);")
MODULE = re.compile(r"\bmod\s+(\w+)\s*(;|\{)")
NAMED = re.compile(r"(?<![\w:$])(?:r#)?([A-Za-z_]\w*)((?:\s*::\s*(?:r#)?\w+)+)")


@dataclass
class Module:
    children: set[str] = field(default_factory=set)
    # What a name means here: name -> paths as written.
    names: dict[str, Path] = field(default_factory=dict)
    # Modules whose every name is a name here, as written.
    globs: list[Path] = field(default_factory=list)
    # Paths in its code: (path as written, file, line).
    uses: list[tuple[Path, str, int]] = field(default_factory=list)


def blank(text: str) -> str:
    """The code without comments and the content of literals; every line stays where it is."""
    pattern = re.compile(
        r'//[^\n]*|/\*|b?c?r(#*)".*?"\1|b?c?"(?:\\.|[^"\\])*"' r"|b?'(?:\\[^\n]*?|[^\\'\n])'",
        re.DOTALL,
    )
    out, at = [], 0
    while found := pattern.search(text, at):
        out.append(text[at : found.start()])
        end = found.end()
        if found.group() == "/*":
            depth = 1
            while depth and (mark := re.compile(r"/\*|\*/").search(text, end)):
                depth += 1 if mark.group() == "/*" else -1
                end = mark.end()
            end = len(text) if depth else end
        out.append(re.sub(r"[^\n]", " ", text[found.start() : end]))
        at = end
    return "".join(out) + text[at:]


def end_of_item(code: str, at: int) -> int:
    """Where the item ends that begins at `at`: after its block, or after `;` or `,` outside of brackets."""
    depth = 0
    while at < len(code):
        if code[at] in "([{":
            depth += 1
        elif code[at] in ")]}":
            depth -= 1
            if depth < 0:
                return at
            if depth == 0 and code[at] == "}":
                return at + 1
        elif code[at] in ";," and depth == 0:
            return at + 1
        at += 1
    return at


def without_tests(code: str) -> tuple[str, set[str]]:
    """The code without what only tests have, and the modules in files of their own that are such."""
    tests: set[str] = set()
    at = 0
    while found := TEST.search(code, at):
        begin = found.end()
        while attribute := re.compile(r"\s*#\s*\[").match(code, begin):
            begin = end_of_brackets(code, attribute.end() - 1)
        end = end_of_item(code, begin)
        for module in MODULE.finditer(code, begin, end):
            tests.add(module.group(1))
        code = code[: found.start()] + re.sub(r"[^\n]", " ", code[found.start() : end]) + code[end:]
        at = end
    return code, tests


def end_of_brackets(code: str, at: int) -> int:
    """After the bracket that closes the one at `at`."""
    depth = 0
    for index in range(at, len(code)):
        depth += {"[": 1, "]": -1}.get(code[index], 0)
        if depth == 0:
            return index + 1
    return len(code)


def use_tree(tree: str, before: Path = ()) -> list[tuple[Path, str]]:
    """Every path of a `use` with the name that it gives, `*` for all and `_` for none."""
    tree = tree.strip()
    if group := re.fullmatch(r"(.*?)\{(.*)\}", tree, re.DOTALL):
        before += segments(group.group(1))
        parts, depth, part = [], 0, ""
        for letter in group.group(2) + ",":
            depth += {"{": 1, "}": -1}.get(letter, 0)
            if letter == "," and depth == 0:
                parts.append(part)
                part = ""
            else:
                part += letter
        return [found for part in parts if part.strip() for found in use_tree(part, before)]
    path, _, name = tree.partition(" as ")
    path = before + segments(path)
    if path[-1] == "self" and len(path) > 1:
        path = path[:-1]
    return [(path, name.strip() or path[-1])]


def segments(path: str) -> Path:
    return tuple(part.strip().removeprefix("r#") for part in path.split("::") if part.strip())


class Crate:
    """The modules of a crate: files by their path from `src/`, of which `root` is the first."""

    def __init__(self, files: dict[str, str], root: str):
        self.modules: dict[Path, Module] = {}
        self.files = files
        self.read((), root, root.rpartition("/")[0])

    def read(self, here: Path, file: str, folder: str) -> None:
        code, tests = without_tests(blank(self.files[file]))
        self.parse(here, code, file, folder, tests, 0)

    def parse(self, here: Path, code: str, file: str, folder: str, tests: set[str], line: int) -> None:
        """A module from its code. `folder` has the files of the modules below it."""
        module = self.modules[here] = Module()
        while found := re.compile(r"\bmod\s+(\w+)\s*\{").search(code):
            end = end_of_item(code, found.end() - 1)
            inside = code[found.end() : end - 1]
            name = found.group(1)
            module.children.add(name)
            above = line + code.count("\n", 0, found.end())
            self.parse((*here, name), inside, file, join(folder, name), tests, above)
            code = code[: found.start()] + re.sub(r"[^\n]", " ", code[found.start() : end]) + code[end:]
        for found in MODULE.finditer(code):
            name = found.group(1)
            below = next((f for f in (join(folder, f"{name}.rs"), join(folder, f"{name}/mod.rs"))
                          if f in self.files), None)
            if name in tests or below is None:
                continue
            module.children.add(name)
            self.read((*here, name), below, join(folder, name))
        for found in USE.finditer(code):
            number = line + code.count("\n", 0, found.start()) + 1
            for path, name in use_tree(found.group(1)):
                if name == "*":
                    path = path[:-1]
                    module.globs.append(path)
                elif name != "_":
                    module.names[name] = path
                module.uses.append((path, file, number))
        code = USE.sub(lambda use: re.sub(r"[^\n]", " ", use.group()), code)
        for found in NAMED.finditer(code):
            number = line + code.count("\n", 0, found.start()) + 1
            module.uses.append((segments(found.group()), file, number))

    def resolve(self, here: Path, path: Path, seen: frozenset = frozenset()) -> Path | None:
        """The module that defines what a path means in a module; None if that is outside of the crate."""
        first, rest = path[0], path[1:]
        if first == "crate":
            return self.below((), rest, seen)
        if first == "self":
            return self.below(here, rest, seen)
        if first == "super":
            return self.below(here[:-1], rest, seen) if here else None
        if first in self.modules[here].children:
            return self.below((*here, first), rest, seen)
        if (here, first) in seen:
            return None
        seen |= {(here, first)}
        if first in self.modules[here].names:
            return self.resolve(here, self.modules[here].names[first] + rest, seen)
        for glob in self.modules[here].globs:
            target = self.resolve(here, glob, seen)
            if target is not None and self.has(target, first):
                return self.below(target, path, seen)
        return None

    def has(self, module: Path, name: str) -> bool:
        return name in self.modules[module].children or name in self.modules[module].names

    def below(self, module: Path, path: Path, seen: frozenset) -> Path | None:
        """The module that defines what a path means from outside of the module that it begins in."""
        while path and path[0] == "super":
            module, path = module[:-1], path[1:]
        if not path:
            return module
        if self.has(module, path[0]):
            return self.resolve(module, path, seen)
        for glob in self.modules[module].globs:
            target = self.resolve(module, glob, seen)
            if target is not None and self.has(target, path[0]):
                return self.below(target, path, seen)
        return module

    def arrows(self) -> dict[Path, dict[tuple[str, str], tuple[str, int, str]]]:
        """Of each module: which of the modules below it uses which other, and the first place where."""
        arrows: dict = defaultdict(dict)
        for here, module in self.modules.items():
            for path, file, line in module.uses:
                target = self.resolve(here, path)
                if target is None:
                    continue
                depth = 0
                while depth < min(len(here), len(target)) and here[depth] == target[depth]:
                    depth += 1
                if depth < min(len(here), len(target)):
                    arrow = (here[depth], target[depth])
                    arrows[here[:depth]].setdefault(arrow, (file, line, "::".join(path)))
        return arrows


def join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def circles(names: set[str], arrows: set[tuple[str, str]]) -> list[list[str]]:
    """The shortest circle of each set of names that use each other."""
    after = {name: sorted(b for a, b in arrows if a == name) for name in sorted(names)}

    def way(start: str, goal: str) -> list[str] | None:
        ways, queue = {start: [start]}, [start]
        for name in queue:
            for following in after[name]:
                if following == goal:
                    return ways[name]
                if following not in ways:
                    ways[following] = [*ways[name], following]
                    queue.append(following)
        return None

    found: list[list[str]] = []
    for name in after:
        circle = way(name, name)
        if circle and not any(set(circle) & set(known) for known in found):
            found.append(circle)
    return found


def check_circles(crate: str, files: dict[str, str]) -> list[str]:
    """The circles of a crate. `files` are its Rust files, by path from the crate's folder."""
    root = next((root for root in ("src/lib.rs", "src/main.rs") if root in files), None)
    if root is None:
        return []
    found = []
    for parent, arrows in sorted(Crate(files, root).arrows().items()):
        names = {name for arrow in arrows for name in arrow}
        for circle in circles(names, set(arrows)):
            places = []
            for arrow in zip(circle, [*circle[1:], circle[0]]):
                file, line, path = arrows[arrow]
                places.append(f"\n    {arrow[0]} uses {arrow[1]}: {path} in {crate}/{file}:{line}")
            where = "::".join((crate, *parent))
            found.append(f"{where}: a circle of modules: {' -> '.join([*circle, circle[0]])}{''.join(places)}")
    return found
