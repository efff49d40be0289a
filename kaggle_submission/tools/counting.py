"""Find where 512 counts runs in a notebook: by its syntax trees, and by where each number goes.

A number counts runs if all that it reaches is a loop whose body unlearns or saves a checkpoint, a check of how
many files or runs there are, or a text; with at least one of the first two. It may go there through names,
attributes of settings, keys of dictionaries and parameters. If it reaches anything else, it stays.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

RUNS = 512  # what the competition asks for

RANGES = ("range", "trange", "arange")
PASSED_ON = ("tqdm", "enumerate", "list", "tuple", "reversed", "iter", "zip", "track", "progress_bar")
MAPS = ("map", "imap", "imap_unordered", "starmap")
NUMBERS = ("int", "float", "min", "max", "str")
TEXTS = ("print", "warn", "warning", "info", "debug", "error", "write", "set_description", "format", "display")
SAVES = re.compile(r"save|save_file|save_model|dump")
CHECKPOINT = re.compile(r"unlearned_checkpoint|\.pth\b")
FILES = re.compile(
    r"listdir|\br?glob\b|iterdir|namelist|infolist|scandir|os\.walk|checkpoint|ckpt|\.pth|unlearned|submission"
)
SHAPES = re.compile(r"feature|shape|size|dim", re.IGNORECASE)
NO_RUNS = re.compile(
    r"feature|shape|size|dim|width|channel|weight|numel|batch|hidden|input|image|\.png|\.jpg", re.IGNORECASE
)
Function = ast.FunctionDef | ast.AsyncFunctionDef
Loop = ast.For | ast.While
ORDER = ast.Eq | ast.NotEq | ast.Lt | ast.LtE | ast.Gt | ast.GtE


class Role(Enum):
    """What a number does in one place."""

    COUNTS = "counts runs"
    NEUTRAL = "is shown, or takes part in a calculation that is"
    STAYS = "is something else"
    DOUBT = "is not understood"


@dataclass(frozen=True)
class Number:
    """A 512 in the notebook: its cell from 0, its node, the node around it, and what it does."""

    cell: int
    node: ast.Constant
    around: ast.AST
    role: Role


def numbers(trees: list[ast.Module | None]) -> list[Number]:
    """Return each 512 in the syntax trees of a notebook's code cells; None is a cell that is not Python."""
    program = _Program([tree for tree in trees if tree is not None])
    return [
        Number(cell, node, program.parents[node], program.role(node, literal=True))
        for cell, tree in enumerate(trees)
        if tree is not None
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and type(node.value) is int and node.value == RUNS
        if not any(isinstance(above, ast.JoinedStr) for above in program.above(node))
    ]


class _Names:
    """What each name, attribute and key of a program stands for, where it is set and where it is used."""

    def __init__(self, trees: list[ast.Module]):
        self.parents = {child: node for tree in trees for node in ast.walk(tree) for child in _children(node)}
        self.nodes = [node for tree in trees for node in ast.walk(tree)]
        self.functions: dict[str, list[Function]] = defaultdict(list)
        self.classes = {node.name for node in self.nodes if isinstance(node, ast.ClassDef)}
        self._local: dict[ast.AST, set[str]] = {}
        for node in self.nodes:
            if isinstance(node, Function):
                self.functions[node.name].append(node)
                self._local[node] = _local_names(node)
        self.uses: dict[tuple, list[ast.AST]] = defaultdict(list)
        for node in self.nodes:
            slot = self.slot(node)
            if slot and not isinstance(getattr(node, "ctx", None), ast.Store | ast.Del):
                self.uses[slot].append(node)

    def above(self, node: ast.AST) -> Iterator[ast.AST]:
        while node in self.parents:
            node = self.parents[node]
            yield node

    def slot(self, node: ast.AST) -> tuple | None:
        """Return what an expression reads or sets: a variable, an attribute or a key, whatever has them."""
        if isinstance(node, ast.Name):
            owner = self.parents.get(node)
            if isinstance(node.ctx, ast.Store) and isinstance(self.parents.get(owner), ast.ClassDef):
                return ("attribute", node.id)
            return self.variable(node, node.id)
        if isinstance(node, ast.Attribute):
            return ("attribute", node.attr)
        key = None
        if isinstance(node, ast.Subscript):
            key = node.slice
        elif isinstance(node, ast.Call) and _last_name(node.func) == "get" and node.args:
            key = node.args[0]
        return ("key", key.value) if isinstance(key, ast.Constant) and isinstance(key.value, str) else None

    def variable(self, node: ast.AST, name: str) -> tuple:
        scopes = (above for above in self.above(node) if name in self._local.get(above, ()))
        return ("variable", next(scopes, None), name)

    def functions_around(self, node: ast.AST) -> Iterator[Function]:
        return (above for above in self.above(node) if isinstance(above, Function))


class _Program(_Names):
    """A notebook, asked what its numbers do."""

    def __init__(self, trees: list[ast.Module]):
        super().__init__(trees)
        self._asked: set[tuple] = set()
        self._running = {"unlearning"} | {name for name in self.functions if "unlearn" in name.lower()}
        while new := {name for name in self.functions if self._function_runs(name)} - self._running:
            self._running |= new
        self._method = self._functions_of_the_method()
        self._counters = {
            slot for loop in self.nodes if self._is_run_loop(loop) for slot in self._counted_in(loop)
        }

    def role(self, node: ast.AST, literal: bool = False) -> Role:
        """Say what the value of an expression does; `literal` if it is the number itself, not a name of it."""
        parent = self.parents[node]
        if isinstance(parent, ast.Tuple) and isinstance(self.parents[parent], ast.Assign):
            return self._set_together(parent, node)
        if isinstance(parent, ast.Assign | ast.AnnAssign | ast.NamedExpr | ast.arguments | ast.Dict):
            return self._all_uses(self._slots_set(parent, node), self.role)
        if isinstance(parent, ast.keyword):
            return self._given(self.parents[parent], None, parent.arg)
        if isinstance(parent, ast.Call) and node in parent.args:
            return self._given(parent, parent.args.index(node), None)
        if isinstance(parent, ast.Compare):
            return self._compared(parent, node, literal)
        if isinstance(parent, ast.IfExp) and node is not parent.test:
            return self.role(parent, literal)
        if isinstance(parent, ast.BinOp):
            return self._calculated(parent, literal)
        if isinstance(parent, ast.FormattedValue | ast.Expr | ast.Slice):
            return Role.DOUBT if literal and isinstance(parent, ast.Slice) else Role.NEUTRAL
        return Role.STAYS if isinstance(parent, ast.List | ast.Tuple | ast.Subscript) else Role.DOUBT

    def _calculated(self, node: ast.BinOp, literal: bool) -> Role:
        role = self.role(node)
        if role is Role.STAYS:
            return role
        return Role.DOUBT if literal else Role.COUNTS if role is Role.COUNTS else Role.NEUTRAL

    def _slots_set(self, node: ast.AST, value: ast.AST) -> list[tuple | None]:
        """Return what a statement, a parameter list or a dictionary sets to a value."""
        if isinstance(node, ast.Assign):
            return [self.slot(target) for target in node.targets]
        if isinstance(node, ast.AnnAssign | ast.NamedExpr):
            return [self.slot(node.target)]
        if isinstance(node, ast.Dict):
            key = node.keys[node.values.index(value)] if value in node.values else None
            return [("key", key.value) if isinstance(key, ast.Constant) else None]
        plain = [*node.posonlyargs, *node.args]
        pairs = [*zip(plain[::-1], node.defaults[::-1], strict=False)]  # the last ones have defaults
        pairs += zip(node.kwonlyargs, node.kw_defaults, strict=True)
        return [("variable", self.parents[node], name.arg) for name, default in pairs if default is value]

    def _set_together(self, values: ast.Tuple, value: ast.AST) -> Role:
        slots = []
        for target in self.parents[values].targets:
            if not isinstance(target, ast.Tuple) or len(target.elts) != len(values.elts):
                return Role.STAYS
            slots.append(self.slot(target.elts[values.elts.index(value)]))
        return self._all_uses(slots, self.role)

    def _all_uses(self, slots: Iterable[tuple | None], role_of) -> Role:
        """Return what a value does in all places where it is used under these names."""
        roles = set()
        for slot in slots:
            if slot is None:
                return Role.DOUBT
            if slot in self._asked:  # a name that is set from itself
                continue
            self._asked.add(slot)
            roles |= {role_of(use) for use in self.uses[slot]}
            if any(isinstance(node, ast.AugAssign) and self.slot(node.target) == slot for node in self.nodes):
                roles.add(Role.DOUBT)
            self._asked.remove(slot)
        if Role.DOUBT in roles or {Role.COUNTS, Role.STAYS} <= roles:
            return Role.DOUBT
        return next((role for role in (Role.COUNTS, Role.STAYS) if role in roles), Role.NEUTRAL)

    def _given(self, call: ast.Call, index: int | None, keyword: str | None) -> Role:
        """Say what a number does that is given to a function."""
        name = _last_name(call.func)
        if name in RANGES and index is not None:
            is_stop = index == min(1, len(call.args) - 1) and (len(call.args) < 3 or _is(call.args[2], 1))
            return self._iterated(call) if is_stop else Role.DOUBT
        if name in NUMBERS or (name in ("get", "getattr") and index == len(call.args) - 1 > 0):
            return self.role(call)
        if name in TEXTS or name.endswith(("Error", "Exception", "Exit")) or keyword in ("total", "desc"):
            return Role.NEUTRAL
        if keyword and (name in ("dict", "SimpleNamespace", "Namespace") or name in self.classes):
            return self._all_uses([("key" if name == "dict" else "attribute", keyword)], self.role)
        if isinstance(call.func, ast.Name) and len(self.functions.get(name, ())) == 1:
            arguments = self.functions[name][0].args
            names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
            keyword = keyword or (names[index] if index is not None and index < len(names) else None)
            if keyword is None:
                return Role.DOUBT
            return self._all_uses([("variable", self.functions[name][0], keyword)], self.role)
        return Role.DOUBT if keyword == "default" or name in self.functions else Role.STAYS

    def _iterated(self, node: ast.AST) -> Role:
        """Say what the numbers of a range do."""
        parent = self.parents[node]
        if isinstance(parent, Loop) and node is parent.iter:
            return Role.COUNTS if self._is_run_loop(parent) else Role.STAYS
        if isinstance(parent, ast.comprehension):
            around = self.parents[parent]
            return Role.COUNTS if self._runs([around]) and not self._in_method(around) else Role.STAYS
        if isinstance(parent, ast.Call) and node in parent.args:
            name = _last_name(parent.func)
            if name in MAPS:
                return Role.COUNTS if self._runs(parent.args) and not self._in_method(parent) else Role.STAYS
            return self._iterated(parent) if name in PASSED_ON else Role.DOUBT
        if isinstance(parent, ast.Assign):
            return self._all_uses(self._slots_set(parent, node), self._iterated)
        if isinstance(parent, ast.withitem) and parent.optional_vars is not None:
            return self._all_uses([self.slot(parent.optional_vars)], self._iterated)
        return Role.NEUTRAL if isinstance(parent, ast.Attribute) else Role.DOUBT  # bar.set_description("...")

    def _compared(self, node: ast.Compare, number: ast.AST, literal: bool) -> Role:
        sides = [node.left, *node.comparators]
        place = sides.index(number)
        others = [sides[near] for near in (place - 1, place + 1) if 0 <= near < len(sides)]
        text = "\n".join(self._meaning(other) for other in others)
        if not all(isinstance(operator, ORDER) for operator in node.ops) or self._in_method(node):
            return Role.STAYS if NO_RUNS.search(text) else Role.DOUBT
        if any(map(self._counts_runs, others)) and not SHAPES.search(text):
            return Role.COUNTS
        if FILES.search(text):
            return Role.DOUBT if NO_RUNS.search(text) else Role.COUNTS
        if NO_RUNS.search(text):
            return Role.STAYS
        plain = all(isinstance(other, ast.Constant) for other in others)
        return Role.NEUTRAL if plain and not literal else Role.DOUBT

    def _counts_runs(self, node: ast.expr) -> bool:
        """Say whether an expression follows a loop of runs: its variable, a counter, the length of a list."""
        return any(self.slot(part) in self._counters for part in ast.walk(node) if isinstance(part, ast.Name))

    def _meaning(self, node: ast.expr, depth: int = 4) -> str:
        """Return the text of an expression and of what its names were set to."""
        parts = [ast.unparse(node)]
        slots = {self.slot(part) for part in ast.walk(node) if isinstance(part, ast.Name)}
        for other in self.nodes if depth and slots else ():
            if isinstance(other, ast.Assign) and slots & {self.slot(target) for target in other.targets}:
                parts.append(self._meaning(other.value, depth - 1))
        return "\n".join(parts)

    def _is_run_loop(self, node: ast.AST) -> bool:
        return isinstance(node, Loop) and self._runs(node.body) and not self._in_method(node)

    def _counted_in(self, loop: Loop) -> Iterator[tuple | None]:
        """Return the variables that go up by one in each run of a loop, and the lists that grow."""
        if isinstance(loop, ast.For):
            yield from (self.slot(part) for part in ast.walk(loop.target) if _is_set(part))
        waiting = list(loop.body)
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
                yield self.slot(node.target)
            elif isinstance(node, ast.Call) and _last_name(node.func) == "append":
                yield self.slot(node.func.value)
            waiting += [] if isinstance(node, Loop) else _children(node)

    def _runs(self, nodes: Iterable[ast.AST]) -> bool:
        """Say whether code unlearns, saves a checkpoint, or names one."""
        parts = [part for node in nodes for part in ast.walk(node)]
        texts = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
        names = {part.id for part in parts if isinstance(part, ast.Name)}
        attributes = {part.attr for part in parts if isinstance(part, ast.Attribute)}
        saves = "state_dict" in attributes and any(map(SAVES.fullmatch, names | attributes))
        calls = (names | {name for name in attributes if "unlearn" in name.lower()}) & self._running
        return saves or bool(calls) or any(map(CHECKPOINT.search, texts))

    def _function_runs(self, name: str) -> bool:
        return any(self._runs(function.body) for function in self.functions[name])

    def _functions_of_the_method(self) -> set[str]:
        """Return the names of the functions that make up one run: unlearning and what it calls."""
        names = {"unlearning"} & set(self.functions) or {
            name for name in self.functions if "unlearn" in name.lower() and not self._saves(name)
        }
        waiting = list(names)
        while waiting:
            for function in self.functions[waiting.pop()]:
                called = {_last_name(part) for part in ast.walk(function) if isinstance(part, ast.Name)}
                new = (called & set(self.functions)) - names
                names |= new
                waiting += new
        return names

    def _saves(self, name: str) -> bool:
        parts = [part for function in self.functions[name] for part in ast.walk(function)]
        return any(isinstance(part, ast.Attribute) and SAVES.fullmatch(part.attr) for part in parts)

    def _in_method(self, node: ast.AST) -> bool:
        return any(function.name in self._method for function in self.functions_around(node))


def _children(node: ast.AST) -> list[ast.AST]:
    return list(ast.iter_child_nodes(node))


def _last_name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _is(node: ast.AST, number: int) -> bool:
    return isinstance(node, ast.Constant) and node.value == number


def _is_set(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def _local_names(function: Function) -> set[str]:
    """Return the parameters of a function and the names that it sets, but for those that it calls global."""
    inside = [part for statement in function.body for part in ast.walk(statement)]
    shared = {name for part in inside if isinstance(part, ast.Global | ast.Nonlocal) for name in part.names}
    arguments = {part.arg for part in ast.walk(function.args) if isinstance(part, ast.arg)}
    return arguments | ({part.id for part in inside if _is_set(part)} - shared)
