import unittest

from stats import average_length


class Stats(unittest.TestCase):
    def test_words(self):
        self.assertEqual(average_length("one three"), 4)

    def test_white_space_does_not_count(self):
        self.assertEqual(average_length("  one\n\nthree  "), 4)

    def test_no_word(self):
        self.assertEqual(average_length("  "), 0)


if __name__ == "__main__":
    unittest.main()
