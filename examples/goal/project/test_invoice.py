from invoice import total


def test_without_tax():
    assert total(["19.99", "0.01"], 0) == "20.00"


def test_half_a_cent_is_rounded_up():
    assert total(["0.50"], 19) == "0.60"
    assert total(["1.05"], 10) == "1.16"
