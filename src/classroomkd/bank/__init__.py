"""The bank: mentors' answers stored by (mentor, sample id, view id), so that no mentor answers a question twice.

This version holds ``views=V``: every sample has V fixed views, answered once before the students start. Exact mode,
features, checksums and filling on a miss come with the bank's own release.
"""

from classroomkd.bank.fixed import FixedBank, answer_file, fill, fill_all

__all__ = ["FixedBank", "answer_file", "fill", "fill_all"]
