from wordcount import count, most_common


def test_case_and_signs_do_not_matter() -> None:
    assert count("The mesh. the MESH, well-known!") == {"the": 2, "mesh": 2, "well-known": 1}


def test_words_of_other_scripts() -> None:
    assert count("Straße STRASSE слово 7") == {"strasse": 2, "слово": 1}


def test_equals_are_in_the_order_of_the_alphabet() -> None:
    assert most_common("b a c c", 2) == [("c", 2), ("a", 1)]


def test_no_words() -> None:
    assert most_common("1 2 3 --", 5) == []
