"""The account of a load test: every request comes back once, under its own name, with the answer that its image always gets."""

import pytest

from serving.load_ledger import Ledger, Objective

LENIENT = Objective(p99_s=10.0, refused=1.0)


def test_requests_that_come_back_right_break_nothing():
    ledger = Ledger()
    for number in range(100):
        ledger.sent(str(number))
        ledger.done(str(number), str(number), "right", seconds=(number + 1) / 100, image="cat.jpg", answer="cat")
    report = ledger.report(Objective(p99_s=0.99, refused=0.0))
    assert report["broken"] == []
    assert (report["requests"], report["p50_s"], report["p95_s"], report["p99_s"]) == (100, 0.50, 0.95, 0.99)


@pytest.mark.parametrize(
    ("calls", "outcome"),
    [
        ([("a", "a", "right", "cat"), ("a", "a", "right", "cat")], "answered twice"),
        ([("a", "b", "right", "cat")], "another's answer"),
        ([("a", None, "right", "cat")], "another's answer"),
        ([("a", "a", "right", "cat"), ("b", "b", "right", "dog")], "changed answer"),
        ([("a", None, "no answer", None)], "no answer"),
        ([("a", "a", "status 500", None)], "status 500"),
    ],
)
def test_each_thing_that_can_go_wrong_is_broken(calls, outcome):
    ledger = Ledger()
    ledger.sent("a")
    ledger.sent("b")
    ended = [ledger.done(name, back, said, seconds=0.1, image="cat.jpg", answer=answer) for name, back, said, answer in calls]
    assert ended[-1] == outcome
    assert f"1 requests: {outcome}" in ledger.report(LENIENT)["broken"]


def test_a_request_that_never_comes_back_is_broken():
    ledger = Ledger()
    ledger.sent("a")
    assert "1 requests: never answered" in ledger.report(LENIENT)["broken"]


def test_refusals_count_against_their_own_objective_and_not_as_latency():
    ledger = Ledger()
    for number in range(100):
        ledger.sent(str(number))
        ledger.done(str(number), str(number), "refused" if number < 2 else "right", seconds=9.0 if number < 2 else 0.1)
    assert ledger.report(Objective(p99_s=1.0, refused=0.02))["broken"] == []
    assert ledger.report(Objective(p99_s=1.0, refused=0.01))["broken"] == ["2.00% of the requests were refused, wanted at most 1.00%"]


def test_slow_answers_and_none_at_all_are_broken():
    ledger = Ledger()
    assert ledger.report(LENIENT)["broken"] == ["no request was answered right"]
    ledger.sent("a")
    ledger.done("a", "a", "right", seconds=2.0)
    assert ledger.report(Objective(p99_s=1.0, refused=0.0))["broken"] == ["99 % of the answers took up to 2.000 s, wanted at most 1 s"]
