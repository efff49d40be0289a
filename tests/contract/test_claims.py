"""Every entry claims what docs/results/builtin64.csv holds, in the words that benchmarks/claims.py writes."""

import ast
import csv
import doctest

import pytest

from studies import claims

ROWS = list(csv.DictReader(claims.KEPT.read_text().splitlines()))
ENTRIES = sorted(path.stem for path in claims.ENTRIES.glob("[!_]*.py"))


def test_doctests():
    assert doctest.testmod(claims).attempted == 1
    assert doctest.testmod(claims).failed == 0


@pytest.mark.parametrize("name", ENTRIES)
def test_claim_is_what_was_measured(name):
    (row,) = [row for row in ROWS if row["entry"] == name]
    docstring = ast.get_docstring(ast.parse((claims.ENTRIES / f"{name}.py").read_text()))
    claimed = " ".join(docstring.partition("\n\nClaim: ")[2].split())
    measured, machine, date, command = f"Claim: {claimed}".rsplit("; ", 3)
    assert measured == claims.claim(row)
    assert machine
    assert date.count("-") == 2
    assert command == claims.COMMAND


def test_a_new_claim_replaces_the_old_one():
    source = (claims.ENTRIES / "finetune.py").read_text()
    once = claims.with_claim(source, "Claim: a")
    assert claims.with_claim(once, "Claim: a") == once
    assert claims.with_claim(once, claims_of(source)) == source


def claims_of(source):
    """Return the claim of an entry's text, in one line."""
    docstring = source.split('"""')[1]
    return " ".join(("Claim: " + docstring.partition("\n\nClaim: ")[2]).split())


def test_an_entry_without_a_score_claims_nothing():
    row = {"entry": "slow", "status": "rejected", "reason": "Too slow."}
    with pytest.raises(ValueError, match=r"^slow has no score to claim: rejected. Too slow.$"):
        claims.claim(row)
