"""Code that was written for a GPU, made to run without one.

Every mention of "cuda" becomes one of "cpu", questions for a GPU are answered as if there were one, so that a
guard lets the code pass, and what waits for a GPU does nothing. Mixed precision stays as it is: without a GPU
torch switches it off. Line numbers do not change.
"""

from __future__ import annotations

import ast
import re

from local_scorer.execution import syntax
from local_scorer.execution.syntax import Edit

CUDA = re.compile(r"cuda(:\d+)?")
ANSWERS = {
    "torch.cuda.is_available": "True",
    "torch.cuda.device_count": "1",
    "torch.cuda.current_device": "0",
    "torch.cuda.get_device_name": "'cpu'",
    "torch.cuda.set_device": "None",
    "torch.cuda.synchronize": "None",
    "torch.cuda.reset_peak_memory_stats": "None",
}
MIXED_PRECISION = ("autocast", "GradScaler")


def rewritten(text: str, imported: dict[str, str] | None = None) -> tuple[str, list[str]]:
    """Return Python text that runs without a GPU, and one line for each change.

    Args:
        imported: names that other text imports, as of `syntax.imported_names`; in a notebook, of all its cells.

    Raises:
        SyntaxError, ValueError: the text is not Python.

    >>> rewritten("net.cuda()\\nx = x.to('cuda')")
    ("net.cpu()\\nx = x.to('cpu')", ['line 1: .cuda() -> .cpu()', "line 2: 'cuda' -> 'cpu'"])
    """
    if "cuda" not in text and "cpu" not in text:
        return text, []
    tree = syntax.parse(text)
    finder = _Finder({**(imported or {}), **syntax.imported_names([tree])})
    finder.visit(tree)
    edits = sorted(finder.edits, key=lambda edit: edit.start)
    changes = [
        f"line {edit.start[0]}: {syntax.old_text(text, edit)} -> {''.join(edit.new.splitlines())}"
        for edit in edits
    ]
    return syntax.replaced(text, edits), changes


class _Finder(ast.NodeVisitor):
    """Collect the edits of one syntax tree."""

    def __init__(self, imported: dict[str, str]):
        self._imported = imported
        self.edits: list[Edit] = []

    def visit_Call(self, node: ast.Call) -> None:
        name = syntax.full_name(node.func, self._imported)
        if name in ANSWERS:
            self.edits.append(Edit.of(node, ANSWERS[name]))
        elif isinstance(node.func, ast.Attribute) and node.func.attr == "cuda":  # tensor.cuda(), net.cuda()
            start, end = syntax.end_of(node.func.value), syntax.end_of(node)
            self.edits.append(Edit(start, end, ".cpu(" + "\n" * (end[0] - start[0]) + ")"))
            self.visit(node.func.value)
        elif name.rpartition(".")[2] in MIXED_PRECISION:
            for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
                if not isinstance(argument, ast.Constant):
                    self.visit(argument)
        else:
            self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        for part in (node.left, *node.comparators):
            if isinstance(part, ast.Constant) and part.value == "cpu":  # a guard against it lets the code pass
                self.edits.append(Edit.of(part, "'no GPU'"))
            else:
                self.visit(part)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and CUDA.fullmatch(node.value):
            self.edits.append(Edit.of(node, "'cpu'"))

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Replace an f-string as a whole: before Python 3.12 it is not known where its parts stand."""
        first = node.values[0] if node.values else None
        if isinstance(first, ast.Constant) and str(first.value).startswith("cuda:"):
            self.edits.append(Edit.of(node, "'cpu'"))
            return
        changed = False
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                text, changes = rewritten(ast.unparse(part.value), self._imported)
                if changes:
                    part.value, changed = ast.parse(text, mode="eval").body, True
        if changed:
            self.edits.append(Edit.of(node, ast.unparse(node)))
