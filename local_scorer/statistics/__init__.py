"""How sure a score is: intervals, ties, forecasts and audits. Needs no torch."""
