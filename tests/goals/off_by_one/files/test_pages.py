import unittest

from pages import page, pages


class Pages(unittest.TestCase):
    def test_a_page_is_full(self):
        self.assertEqual(page([1, 2, 3, 4, 5], 1, 2), [1, 2])

    def test_the_last_page_has_the_rest(self):
        self.assertEqual(page([1, 2, 3, 4, 5], 3, 2), [5])

    def test_a_begun_page_counts(self):
        self.assertEqual([pages([1] * n, 2) for n in (0, 1, 2, 3)], [0, 1, 1, 2])


if __name__ == "__main__":
    unittest.main()
