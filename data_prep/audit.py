"""What was found in the raw MUFAC rows: counted once, printed as a table and kept in the manifest."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Audit:
    """Counts over the raw rows, and what the forget set shares with the retain set.

    A count without a suffix takes a repeated picture in either form. ``_exact`` counts the groups of equal
    pixels alone. ``_near`` counts the groups that hold different pixels, that is re-encoded or brightened
    copies. A group can hold both, so ``_exact`` and ``_near`` need not add up to the total.
    """

    rows: int
    unlisted_pictures: int
    unique_pictures: int
    unique_pictures_exact: int
    duplicate_groups: int
    duplicate_groups_exact: int
    duplicate_groups_near: int
    groups_across_families: int
    groups_across_families_exact: int
    groups_across_families_near: int
    groups_across_splits: int
    groups_across_splits_exact: int
    groups_across_splits_near: int
    label_conflicts: int
    label_conflicts_exact: int
    label_conflicts_near: int
    identities_before: int
    identities_after: int
    identities_after_exact: int
    dropped: dict[str, int]
    forget_pictures: int
    forget_pictures_in_retain: int
    forget_pictures_in_retain_exact: int
    forget_people: int
    forget_people_in_retain: int


def count(rows: pd.DataFrame, kept: pd.DataFrame, dropped: dict[str, int], unlisted: int) -> Audit:
    """Count what the raw `rows` hold and what the `kept` ones share between forget and retain.

    Args:
        rows: columns family_id, role, age_group, published_split, equal, picture, person, person_exact.
        kept: the rows of the prepared set: the same columns and `split`.
        dropped: rows left out, by reason.
        unlisted: pictures in the image folders that no row names.
    """
    forget, retain = kept[kept["split"] == "forget"], kept[kept["split"] == "retain"]
    forget_people = set(forget["person"])
    return Audit(
        rows=len(rows),
        unlisted_pictures=unlisted,
        unique_pictures=rows["picture"].nunique(),
        unique_pictures_exact=rows["equal"].nunique(),
        **_counts("duplicate_groups", rows, None),
        **_counts("groups_across_families", rows, "family_id"),
        **_counts("groups_across_splits", rows, "published_split"),
        **_counts("label_conflicts", rows, "age_group"),
        identities_before=len(rows[["family_id", "role"]].drop_duplicates()),
        identities_after=rows["person"].nunique(),
        identities_after_exact=rows["person_exact"].nunique(),
        dropped=dropped,
        forget_pictures=len(forget),
        forget_pictures_in_retain=int(forget["picture"].isin(retain["picture"]).sum()),
        forget_pictures_in_retain_exact=int(forget["equal"].isin(retain["equal"]).sum()),
        forget_people=len(forget_people),
        forget_people_in_retain=len(forget_people & set(retain["person"])),
    )


def _counts(name: str, rows: pd.DataFrame, column: str | None) -> dict[str, int]:
    """Count the groups whose rows differ in `column`, or that have more than one row if it is None."""

    def wide(group: str) -> pd.Series:
        grouped = rows.groupby(group)
        return (grouped.size() if column is None else grouped[column].nunique()) > 1

    either = wide("picture")
    differing = rows.groupby("picture")["equal"].nunique() > 1
    return {
        name: int(either.sum()),
        f"{name}_exact": int(wide("equal").sum()),
        f"{name}_near": int((either & differing).sum()),
    }


def table(audit: Audit, counts: dict[str, list[int]], people: dict[str, int], class_names: list[str]) -> str:
    """Lay out the audit and the prepared set as text.

    Args:
        counts: pictures per split and class, as in the manifest.
        people: people per split, as in the manifest.
    """
    lines = [
        f"{'raw file':26}{'equal':>9}{'near':>9}{'either':>9}",
        f"{'rows':26}{'':>18}{audit.rows:>9,}",
        f"{'unique pictures':26}{audit.unique_pictures_exact:>9,}{'':>9}{audit.unique_pictures:>9,}",
    ]
    for name in ("duplicate_groups", "groups_across_families", "groups_across_splits", "label_conflicts"):
        exact, near, either = (getattr(audit, name + form) for form in ("_exact", "_near", ""))
        lines.append(f"{name.replace('_', ' '):26}{exact:>9,}{near:>9,}{either:>9,}")
    lines += [
        f"{'identities before':26}{'':>18}{audit.identities_before:>9,}",
        f"{'identities after':26}{audit.identities_after_exact:>9,}{'':>9}{audit.identities_after:>9,}",
        "",
        f"{'rows dropped':44}{sum(audit.dropped.values()):>9,}",
    ]
    lines += [f"  {reason:42}{n:>9,}" for reason, n in audit.dropped.items()]
    if audit.unlisted_pictures:
        lines.append(f"{'pictures that no row names, left out':44}{audit.unlisted_pictures:>9,}")
    lines += ["", f"{'prepared':12}{'people':>8}{'pictures':>10}" + "".join(f"{c:>7}" for c in class_names)]
    for split, per_class in counts.items():
        cells = "".join(f"{n:>7,}" for n in per_class)
        lines.append(f"{split:12}{people[split]:>8,}{sum(per_class):>10,}{cells}")
    lines += [
        "",
        f"{audit.forget_pictures_in_retain:,} of {audit.forget_pictures:,} forget pictures have an equal or "
        f"near copy in retain ({audit.forget_pictures_in_retain_exact:,} an equal one).",
        f"{audit.forget_people_in_retain:,} of {audit.forget_people:,} forgotten people still have pictures "
        "in retain.",
    ]
    return "\n".join(lines)
