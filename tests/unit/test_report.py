import csv
import dataclasses
import io
import json
import math
import re

import pytest

from local_scorer.report import board, table
from local_scorer.report.board import Leaderboard
from local_scorer.report.rows import Row
from local_scorer.runs.record import Entry, Run
from local_scorer.runs.store import Failure, RunFolder
from local_scorer.statistics.ties import Tie
from tests.helpers.runs import ENVIRONMENT, job_result, run_data, run_record, save_jobs

RETRAINED = {f"retrained{n}": (n, 19.0) for n in range(3)}  # key -> confidence on the forget set, seconds
CEILING = {f"ceiling{n}": (2 - n, 21.0) for n in range(3)}  # the same confidences: F is 1


def some_result(confidence, seconds, retain=0.8, forget=0.5, test=0.5, **header):
    accuracy = {"retain": retain, "forget": forget, "validation": math.nan, "test": test}
    return job_result(confidence, seconds=seconds, accuracy=accuracy, **header)


@pytest.fixture
def folder(tmp_path):
    """A run of N=3 with an original and two sets of retrained models; retraining takes 20 s in the median."""
    folder = RunFolder(tmp_path / "run")
    folder.save_result("original", some_result(5.0, 25.0))
    for key, (confidence, seconds) in {**RETRAINED, **CEILING}.items():
        folder.save_result(key, some_result(confidence, seconds))
    return folder


def add_entry(folder, name, confidences=(1, 0, 2), seconds=2.0, **options):
    keys = save_jobs(folder, name, [some_result(confidence, seconds, **options) for confidence in confidences])
    return Entry(name=name, hash="h", keys=keys)


def collect(folder, *entries, rules=None):
    return board.collect(Run(folder, record_of(*entries)), rules)


def record_of(*entries, **changes):
    return run_record(list(RETRAINED), list(CEILING), *entries, **changes)


def row_of(found, name):
    return next(row for row in found.rows if row.entry == name)


def test_scored_row_by_hand(folder):
    """Confidences as the retrained models': F = 1. Score = 0.6 / 0.8 x 0.4 / 0.5 = 0.6."""
    entry = add_entry(folder, "mine", seconds=3.0, retain=0.6, forget=0.25, test=0.4)
    row = row_of(collect(folder, entry), "mine")
    assert row.status == "scored"
    assert row.reason == ""
    assert row.forgetting_quality == 1
    assert row.retain_ratio == pytest.approx(0.75)
    assert row.test_ratio == pytest.approx(0.8)
    assert row.score == pytest.approx(0.6)
    assert row.share_of_ceiling == pytest.approx(0.6)
    assert (row.retain_accuracy, row.forget_accuracy, row.test_accuracy) == pytest.approx((0.6, 0.25, 0.4))
    assert row.seconds == pytest.approx(3)
    assert row.time_ratio == pytest.approx(0.15)  # of the median of both sets of retrained models
    assert (row.cpu_time_ratio, row.wall_time_ratio) == pytest.approx((0.15, 0.15))
    assert row.clock == "cpu"
    assert (row.time_low, row.time_high) == pytest.approx((3 / 21, 3 / 19))
    assert row.n_models == 3


def test_reference_rows(folder):
    found = collect(folder)
    ceiling, floor = found.rows
    assert (ceiling.entry, ceiling.status) == ("retrained", "scored")
    assert (ceiling.score, ceiling.share_of_ceiling) == (1, 1)
    assert ceiling.time_ratio == pytest.approx(1.05)  # shown, but no reason to reject it
    assert (floor.entry, floor.status, floor.score) == ("no unlearning", "scored", 0)
    assert (floor.seconds, floor.time_ratio, floor.n_models) == (0, 0, 3)
    assert ceiling.is_reference
    assert floor.is_reference
    assert found.all_scored
    assert found.to_forget == pytest.approx(4.0, rel=1e-5)  # (5 - 1) / 1


def test_full_setup_scores_the_originals_themselves(folder):
    """Each run starts from an original of its own; three originals that answer as retrained models have F = 1."""
    originals = save_jobs(folder, "original", [some_result(confidence, 25.0) for confidence in (0, 1, 2)])
    entry = add_entry(folder, "mine")
    full = {"setup": "full", "n_originals": 3, "originals": originals}
    found = board.collect(Run(folder, record_of(entry, **full)))
    floor, mine = row_of(found, "no unlearning"), row_of(found, "mine")
    assert (floor.forgetting_quality, floor.n_models, floor.time_ratio) == (1, 3, 0)
    assert floor.score_low < floor.score == floor.score_high == 1
    assert (len(mine.scores), mine.n_models) == (1, 3)
    text = " ".join(table.table(found).split())
    assert "one run from each of N=3 originals" in text
    assert "floor = the N originals as they are" in text
    assert not any("copies of one model" in note for note in found.notes)


def test_over_two_originals_a_row_is_the_mean_and_a_score_of_nothing_has_an_upper_end(folder):
    originals = save_jobs(folder, "original", [some_result(5.0, 25.0), some_result(6.0, 25.0)])
    entries = add_entry(folder, "mine", (0, 1, 2, 50, 51, 52)), add_entry(folder, "nothing", [50, 51, 52] * 2)
    found = board.collect(Run(folder, record_of(*entries, n_originals=2, originals=originals)))
    mine, nothing = row_of(found, "mine"), row_of(found, "nothing")
    assert (mine.score, mine.scores) == (0.5, (1, 0))
    assert mine.score_low < mine.score < mine.score_high == 1
    assert (nothing.score_low, nothing.score_high) == (0, pytest.approx((1 - 0.025**0.5) / 2))  # 2 forget pictures
    assert row_of(found, "no unlearning").score_low is None
    assert found.ties == (Tie(("mine", "nothing"), n_models=3, n_originals=2),)
    assert any("3 retrained models were trained here. The intervals hold" in note for note in found.notes)


def test_over_originals_intervals_hold_the_draw_of_retrained_models_that_were_trained_here(folder):
    """Both originals give the same score, so that all that is left is one less accurate retrained model."""
    folder.save_result("retrained0", some_result(0, 19.0, retain=0.5))
    originals = save_jobs(folder, "original", [some_result(5.0, 25.0), some_result(6.0, 25.0)])
    entry = add_entry(folder, "mine", (0, 1, 2, 0, 1, 2))
    found = board.collect(Run(folder, record_of(entry, n_originals=2, originals=originals)))
    mine, retrained = row_of(found, "mine"), row_of(found, "retrained")
    assert mine.scores == (mine.score, mine.score)
    assert mine.score_low < mine.score
    assert retrained.score_low < retrained.score


@pytest.mark.parametrize(("seconds", "status"), [(4.0, "scored"), (4.001, "rejected")])
def test_time_limit_is_a_fifth(folder, seconds, status):
    entry = add_entry(folder, "mine", seconds=seconds)
    found = collect(folder, entry)
    row = row_of(found, "mine")
    assert row.status == status
    assert found.all_scored is (status == "scored")


def add_timed_entry(folder, wall, cpu):
    """Add an entry by its two times as shares of retraining, which takes 20 s, and 40 CPU seconds."""
    results = [
        dataclasses.replace(some_result(confidence, 20 * wall), cpu_seconds=40 * cpu) for confidence in (1, 0, 2)
    ]
    return Entry(name="mine", hash="h", keys=save_jobs(folder, "mine", results))


@pytest.mark.parametrize(
    ("wall", "cpu", "device", "status", "shown"),
    [
        (0.278, 0.18, "cpu", "scored", 0.18),  # load
        (0.1, 0.25, "cpu", "rejected", 0.25),  # threads or children
        (0.6, 0.02, "cpu", "rejected", 0.02),  # sleeps
        (0.278, 0.18, "cuda", "rejected", 0.278),
        (0.1, 0.25, "cuda", "scored", 0.1),
    ],
)
def test_the_clock_of_the_device_decides(folder, wall, cpu, device, status, shown):
    settings = dataclasses.replace(record_of().settings, device=device)
    run = Run(folder, record_of(add_timed_entry(folder, wall, cpu), settings=settings))
    row = row_of(board.collect(run), "mine")
    assert (row.status, row.time_ratio) == (status, pytest.approx(shown))
    assert bool(row.reason) is (status == "rejected")
    assert (row.wall_time_ratio, row.cpu_time_ratio) == pytest.approx((wall, cpu))


def test_near_the_limit_is_said_and_marked(folder):
    """Trainings of 19 to 21 s: 3.9 s are 18.6 to 20.5 %."""
    found = collect(folder, add_timed_entry(folder, 0.195, 0.195))
    row = row_of(found, "mine")
    assert (row.status, row.is_near_limit) == ("scored", True)
    assert row.reason.startswith("Near the limit: unlearning() took 19.5% of the CPU seconds of retraining")
    assert " 19.5%~ " in table.table(found)
    assert not row_of(found, "retrained").is_near_limit


def test_rejected_row_shows_everything_but_a_score(folder):
    entry = add_entry(folder, "mine", seconds=10.0, retain=0.6)
    row = row_of(collect(folder, entry), "mine")
    assert (row.score, row.score_without_limit) == (None, pytest.approx(0.75))
    assert row.share_of_ceiling is None
    assert row.forgetting_quality == 1
    assert row.time_ratio == 0.5
    assert row.reason == (
        "unlearning() took 50.0% of the CPU seconds of retraining (median, 95% interval 47.6% to 52.6%); "
        "the limit is 20%. "
        "Without the limit its score would be 0.7500."
    )


def test_for_study_a_row_is_scored_whatever_time_it_takes(folder):
    entry = add_entry(folder, "mine", seconds=10.0, retain=0.6)
    row = row_of(board.collect(Run(folder, record_of(entry)), time_limit=False), "mine")
    assert (row.status, row.score, row.time_ratio) == ("scored", pytest.approx(0.75), 0.5)
    assert row.score_low < row.score


def test_failed_row_names_the_run_and_the_kind(folder):
    entry = add_entry(folder, "mine")
    folder.result_path("mine1").unlink()
    folder.save_failure("mine1", Failure("exception", "KeyError: 'age'", "line 1\nKeyError: 'age'"))
    found = collect(folder, entry)
    row = row_of(found, "mine")
    assert row.status == "failed"
    assert row.score is None
    assert row.reason == "[exception, run 2 of 3] KeyError: 'age'"
    assert row.details == "line 1\nKeyError: 'age'"
    assert row.n_models == 0
    assert not found.all_scored


def test_stopped_run_is_rejected_with_its_ratio(folder):
    entry = Entry("mine", "h", ("mine0", "mine1", "mine2"))
    folder.save_failure("mine0", Failure("time-out", "unlearning() was stopped after 12.0 s.", seconds=12.0))
    row = row_of(collect(folder, entry), "mine")
    assert row.status == "rejected"
    assert row.time_ratio == pytest.approx(0.6)
    assert row.reason == (
        "Stopped in run 1 of 3 after 12.0 s, 60% of the 20.0 s (wall clock) that retraining takes; "
        "the limit is 20%. Make it faster, or give --over-limit to see what it would score. On a busy machine, or "
        "with a recipe that trains briefly, give --again or a longer --recipe."
    )


def test_time_out_outside_unlearning_is_a_failure(folder):
    entry = Entry("mine", "h", ("mine0",))
    folder.save_failure("mine0", Failure("time-out", "No end within 300 s outside unlearning() (unlearn)."))
    assert row_of(collect(folder, entry), "mine").status == "failed"


def test_unfinished_entry_and_unreadable_entry_file(folder):
    entry = add_entry(folder, "half")
    folder.result_path("half2").unlink()
    unreadable = Entry("gone", None, (), "There is no entry file gone.py.")
    found = collect(folder, entry, unreadable)
    assert row_of(found, "half").reason == "Not finished: 1 of its 3 runs are missing."
    assert row_of(found, "gone").reason == "There is no entry file gone.py."
    assert {row_of(found, name).status for name in ("half", "gone")} == {"failed"}


def test_a_broken_model_is_told_of_and_a_score_of_zero_has_no_interval(folder):
    entry = add_entry(folder, "broken", confidences=(1, math.nan, 2))
    row = row_of(collect(folder, entry), "broken")
    assert (row.status, row.score, row.score_low, row.intervals, row.forecast) == ("scored", 0, None, None, None)
    assert row.reason == "1 of 3 models answer with NaN or infinity on forget pictures."


def test_files_of_other_rules_stand_beside_the_runs_own(folder):
    found = collect(folder, add_entry(folder, "mine"))
    names = [path.name for path in (*board.write(folder, found), *board.write(folder, found, "-notebook"))]
    assert names == [
        "leaderboard.csv", "leaderboard.json", "leaderboard-notebook.csv", "leaderboard-notebook.json",
    ]  # fmt: skip


def test_a_tie_says_what_did_not_tell_its_entries_apart():
    assert str(Tie(("a", "b", "c"), n_models=10)) == "a cannot be told from b, c by 10 models."
    assert str(Tie(("a", "b"), n_models=4, n_originals=8)) == "a cannot be told from b by 8 originals."


def test_rows_are_sorted_by_score_with_rejected_and_failed_ones_last(folder):
    entries = [
        Entry("a_failure", None, (), "It cannot be read."),
        add_entry(folder, "a_slow_one", seconds=9.0),
        add_entry(folder, "poor", retain=0.2),
        add_entry(folder, "good", retain=0.6),
        add_entry(folder, "great", retain=0.9),
        add_entry(folder, "also_good", retain=0.6),
    ]
    names = [row.entry for row in collect(folder, *entries).rows]
    assert names == [
        "great", "retrained", "also_good", "good", "poor", "no unlearning", "a_failure", "a_slow_one",
    ]  # fmt: skip


def test_other_rules_on_request(folder):
    entry = add_entry(folder, "mine")
    found = collect(folder, entry, rules="notebook")
    assert found.rules == "notebook"
    assert row_of(found, "mine").score == pytest.approx(1)
    with pytest.raises(ValueError) as error:
        collect(folder, entry, rules="paper")
    assert str(error.value) == "Unknown rules 'paper': expected one of official, notebook."


def test_missing_retrained_model_stops_the_report(folder):
    path = folder.result_path("retrained1")
    path.unlink()
    with pytest.raises(ValueError) as error:
        collect(folder)
    expected = f"{path} is missing: the run is not finished. Run the same leaderboard command again."
    assert str(error.value) == expected


def test_nothing_to_forget_is_the_first_note(folder):
    folder.save_result("original", some_result(1.4, 25.0))  # (1.4 - 1) / 1 standard deviations
    notes = collect(folder).notes
    assert notes[0] == "There is hardly anything to forget here, so these scores rank nothing."
    folder.save_result("original", some_result(1.6, 25.0))
    assert notes[0] not in collect(folder).notes


def test_undefined_amount_to_forget_is_no_amount(folder):
    for key in ("original", *RETRAINED, *CEILING):
        folder.save_result(key, some_result(1.0, 20.0))
    found = collect(folder)
    assert math.isnan(found.to_forget)
    assert found.notes[0].startswith("There is hardly anything to forget here")


def test_different_numbers_of_workers_are_said(folder):
    entry = add_entry(folder, "mine")
    assert not any("worker" in note for note in collect(folder, entry).notes)
    entry = add_entry(folder, "mine", workers=1)
    note = next(note for note in collect(folder, entry).notes if "worker" in note)
    assert note.startswith("Retrained models were timed with 2 worker(s), entries with 1: ")


def usual_board(folder):
    return collect(
        folder,
        add_entry(folder, "similarity_based_bad_teaching", retain=0.6),
        add_entry(folder, "slow", seconds=9.0),
        Entry("broken", "h", ("none",)),
    )


def test_table_fits_into_80_columns_and_keeps_its_own_columns(folder):
    lines = table.table(usual_board(folder)).splitlines()
    assert max(map(len, lines)) <= 80
    start = next(number for number, line in enumerate(lines) if line.startswith("entry "))
    ends = [match for match in range(len(lines[start + 1])) if lines[start + 1][match : match + 2] == "- "]
    for line in lines[start : start + 7]:
        assert all(line[end + 1 : end + 2] in (" ", "") for end in ends)
    first = [line[: ends[0] + 1].rstrip() for line in lines[start + 2 : start + 7]]
    assert first == ["retrained", "similari…teaching", "no unlearning", "broken", "slow"]
    cells = lines[start + 3].split()
    assert cells == [
        "similari…teaching", "0.7500", "0.085-0.750", "75%", "1.0000", "0.750", "1.000", "10.0%", "3",
        "scored",
    ]  # fmt: skip
    assert lines[start + 2].endswith("ceiling")
    assert lines[start + 4].endswith("floor")
    assert lines[start + 5].split() == ["broken", *["-"] * 8, "failed"]


def test_a_board_of_several_machines_or_versions_says_so(folder):
    entry = add_entry(folder, "mine")
    assert not any("mixes" in note for note in collect(folder, entry).notes)
    elsewhere = dataclasses.replace(ENVIRONMENT, processor="Another processor")
    moved = collect(folder, add_entry(folder, "moved", environment=elsewhere))
    assert any("2 kinds of machine" in note and "Another processor" in note for note in moved.notes)
    newer = dataclasses.replace(ENVIRONMENT, packages={"torch": "2.10.0"})
    later = collect(folder, add_entry(folder, "later", environment=newer))
    assert any("2 versions" in note and "torch 2.10.0" in note for note in later.notes)


def test_table_fits_into_80_columns_with_long_names_and_large_numbers(folder):
    found = usual_board(folder)
    slow = "contrastive FLATTEN_LR=5e-4 RETAIN_BATCH=64 RETAIN_LR=3e-3"
    rows = [
        dataclasses.replace(row, entry=slow, time_ratio=1234.5) if row.entry == "slow" else row
        for row in found.rows
    ]
    lines = table.table(dataclasses.replace(found, rows=tuple(rows))).splitlines()
    assert max(map(len, lines)) <= 80
    assert any(re.match(r"contra\S*…\S*e-3 ", line) for line in lines)


@pytest.mark.parametrize(
    ("score", "low", "high", "shown"),
    [
        (0.0002, 0.00008, 0.00031, ".0001-.0003"),
        (0.0099, 0.0, 0.0123, ".0000-.0123"),
        (0.01, 0.0051, 0.0204, "0.005-0.020"),
        (0.0002, None, None, "-"),
    ],
)
def test_interval_of_a_small_score_has_four_decimals(folder, score, low, high, shown):
    found = usual_board(folder)
    first = dataclasses.replace(found.rows[1], score=score, score_low=low, score_high=high)
    lines = table.table(dataclasses.replace(found, rows=(first,))).splitlines()
    assert next(line for line in lines if line.startswith("similarity")).split()[2] == shown


def test_table_cannot_steer_a_terminal(folder):
    found = usual_board(folder)
    name = "red\x1b[31m\u202e\nend"
    rows = [
        dataclasses.replace(row, entry=name, reason=f"{name}\x07") for row in found.rows if row.entry == "broken"
    ]
    tie = f"{name} cannot be told from \u2066."
    text = table.table(dataclasses.replace(found, rows=tuple(rows), notes=(name,), ties=(tie,)))
    assert all(sign.isprintable() for sign in text.replace("\n", ""))
    assert "red�[31m��end  " in text
    assert "Note: red�[31m� end" in text
    assert "Tie: red�[31m� end cannot be told from �." in text


def test_table_counts_one_picture(folder):
    found = usual_board(folder)
    data = run_data(counts=dataclasses.replace(found.data.counts, forget=1))
    assert table.table(dataclasses.replace(found, data=data)).startswith("tiny: 1 picture to forget, 64 to retain")


def test_table_says_what_a_reader_needs(folder):
    text = " ".join(table.table(usual_board(folder)).split())
    assert text.startswith(
        "tiny: 2 pictures to forget, 64 to retain; 32 px, ResNet-18 of width 16, recipe quick, cpu; "
        "official rules, N=3. What there is to forget: the original's confidence on the forget set lies "
        "4.00 standard deviations of the retrained models above theirs (median over examples)."
    )
    assert "broken: failed. Not finished: 1 of its 1 runs are missing." in text
    assert "slow: rejected. unlearning() took 45.0% of the CPU seconds of retraining" in text
    assert "Note: N=3 is too few to rank good entries" in text


def test_json_has_the_fields_that_others_read(folder):
    content = json.loads(board.to_json(usual_board(folder)))
    assert content.keys() == {
        "schema", "data", "rules", "n_models", "to_forget", "notes", "provenance", "rows", "ties", "comparisons",
        "n_originals", "n_retrained", "setup",
    }  # fmt: skip
    assert {
        "entry", "status", "reason", "score", "score_low", "score_high", "forgetting_quality", "retain_accuracy",
        "test_accuracy", "time_ratio", "n_models",
    } <= content["rows"][0].keys()  # fmt: skip
    assert content["schema"] == board.SCHEMA
    assert content["provenance"]["settings"]["width"] == 16
    assert [row["entry"] for row in content["rows"]][:2] == ["retrained", "similarity_based_bad_teaching"]
    assert content["rows"][-1]["score"] is None


def board_of(*rows, **changes):
    provenance = board.Provenance("command", ENVIRONMENT, record_of().settings)
    found = Leaderboard(
        data=run_data(), rules="official", n_models=3, to_forget=1.0, notes=(), provenance=provenance, rows=rows
    )
    return dataclasses.replace(found, **changes)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_and_csv_have_no_nan(value):
    data = run_data(settings={"deep": [{"x": value}]})
    found = board_of(Row("mine", "scored", score=value), to_forget=value, data=data)
    content = json.loads(board.to_json(found), parse_constant=pytest.fail)
    assert content["to_forget"] is None
    assert content["data"]["settings"] == {"deep": [{"x": None}]}
    assert content["rows"][0]["score"] is None
    assert next(csv.DictReader(io.StringIO(board.to_csv(found))))["score"] == ""


def test_csv_by_hand():
    text = board.to_csv(
        board_of(
            Row("mine", "scored", score=0.5, n_models=3),
            Row("other", "failed", reason='He said "no", twice', details="left out"),
        )
    )
    first, second = csv.DictReader(io.StringIO(text))
    left_out = ("intervals", "forecast", "distance", "behaviour", "klom", "details", "scores")
    assert list(first) == [field.name for field in dataclasses.fields(Row) if field.name not in left_out] + [
        "rules"
    ]
    assert (first["entry"], first["status"], first["score"], first["n_models"]) == ("mine", "scored", "0.5", "3")
    assert first["rules"] == "official"
    assert second["reason"] == 'He said "no", twice'
    assert second["score"] == ""
    assert "left out" not in text


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1"])
def test_no_cell_of_the_csv_is_a_formula(text):
    (row,) = csv.DictReader(io.StringIO(board.to_csv(board_of(Row(text, "failed", reason=text, score=-1.0)))))
    assert (row["entry"], row["reason"], row["score"]) == (f"'{text}", f"'{text}", "-1.0")


@pytest.mark.parametrize(
    ("confidences", "accuracy", "why"),
    [
        ((1, 1, 1), {}, "all its runs give the same answers"),
        ((7, 8, 9), {}, "on every forget picture its answers are told from"),
        ((1, 0, 2), {"test": 0.0}, "it predicts no retain picture right, or no test picture"),
    ],
)
def test_a_score_of_zero_says_why(folder, confidences, accuracy, why):
    row = row_of(collect(folder, add_entry(folder, "mine", confidences, **accuracy)), "mine")
    assert row.score == 0
    assert row.reason.startswith(f"Score 0: {why}")


def test_written_files_are_the_texts(folder):
    found = usual_board(folder)
    csv_path, json_path = board.write(folder, found)
    assert (csv_path.name, json_path.name) == ("leaderboard.csv", "leaderboard.json")
    assert csv_path.read_text() == board.to_csv(found)
    assert json_path.read_text() == board.to_json(found)


def test_times_of_another_kind_of_machine_do_not_enter_the_ratio(folder):
    """All retraining was done on one machine; one run of three was on another, which took much longer."""
    other = dataclasses.replace(ENVIRONMENT, processor="a slower one")
    results = [some_result(1, 2.0), some_result(0, 3.0), some_result(2, 500.0, environment=other)]
    entry = Entry(name="mine", hash="h", keys=save_jobs(folder, "mine", results))
    row = row_of(collect(folder, entry), "mine")
    assert row.status == "scored"
    assert row.time_ratio == pytest.approx(2.5 / 20)


def test_without_a_machine_in_common_the_limit_is_not_checked(folder):
    other = dataclasses.replace(ENVIRONMENT, processor="a slower one")
    row = row_of(collect(folder, add_entry(folder, "mine", seconds=500.0, environment=other)), "mine")
    assert row.status == "scored"
    assert row.time_ratio is None
    assert row.reason.startswith("No kind of machine ran both it and a retraining")
