"""Tables whose columns are the scenarios of an evaluation."""

from benchmarks import scenarios


def scenario(users, ours, theirs, low, high):
    """An evaluation of two methods by MAE."""

    def method(name, mean, differences):
        return {
            "name": name,
            "metrics": {"mae": {"mean": mean, "interval": {"users": users}}},
            "differences": differences,
        }

    found = {"difference": ours - theirs, "low": low, "high": high, "excludes_zero": low > 0 or high < 0}
    return {
        "metrics": [{"name": "mae"}],
        "methods": [method("mean", theirs, {}), method("model", ours, {"mean": {"mae": found}})],
        "references": ["mean"],
        "subject": "model",
    }


DOCUMENT = {"scenarios": {"warm": scenario(9, 0.7, 0.8, -0.2, -0.05), "cold": scenario(4, 0.9, 0.8, -0.1, 0.3)}}


def test_a_star_marks_what_differs_from_the_first_reference():
    assert scenarios.values(DOCUMENT, ["mae of mean", "mae of model"]).splitlines() == [
        "|  | warm | cold |",
        "|---|---:|---:|",
        "| users | 9 | 4 |",
        "| MAE: mean | .800 | .800 |",
        r"| MAE: model | .700\* | .900 |",
    ]


def test_gains_have_their_intervals_and_metrics_that_were_not_measured_no_row():
    assert scenarios.gains(DOCUMENT, ["mean"]).splitlines()[2:] == [
        r"| MAE − mean | -.100\* [-.200, -.050] | +.100 [-.100, +.300] |"
    ]


def test_of_a_comparison_only_the_lines_of_all_rows_are_shown():
    line = {"scenario": "new users", "metric": "rmse", "rows": "all rows"}
    found = {"difference": 0.01, "low": 0.001, "high": 0.02, "excludes_zero": True}
    lines = [{**line, "difference": found}, {**line, "rows": "rated twice", "difference": found | {"low": 9.0}}]
    assert scenarios.gains({"lines": lines}, ["the other"]).splitlines() == [
        "|  | new users |",
        "|---|---:|",
        r"| RMSE − the other | +.010\* [+.001, +.020] |",
    ]
