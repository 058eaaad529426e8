"""The bank: mentors' answers stored by (mentor, sample id, view id), so that no mentor answers a question twice.

``RowStore`` holds one mentor's answers of one kind and checks every row; ``EpochCache`` and ``FillOnMissCache`` are
what a training reads of all mentors.
"""

from classroomkd.bank.codec import Codec, Dense, TopK, codec
from classroomkd.bank.fill import fill
from classroomkd.bank.maintenance import Info, Removed, Verified, gc, info, stores, verify
from classroomkd.bank.manifest import Manifest, digest, store_folder
from classroomkd.bank.merge import Merged, merge, told_apart
from classroomkd.bank.reader import LOGITS, Bank, EpochCache, FillOnMissCache
from classroomkd.bank.rows import RowStore

__all__ = [
    "LOGITS",
    "Bank",
    "Codec",
    "Dense",
    "EpochCache",
    "FillOnMissCache",
    "Info",
    "Manifest",
    "Merged",
    "Removed",
    "RowStore",
    "TopK",
    "Verified",
    "codec",
    "digest",
    "fill",
    "gc",
    "info",
    "merge",
    "store_folder",
    "stores",
    "told_apart",
    "verify",
]
