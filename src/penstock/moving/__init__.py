"""Jobs on their way from one store to another, and into a file and back."""

from penstock.moving.backup import BackupInvalid, Kept, back_up
from penstock.moving.mover import Mover, MoveRefused, survey
from penstock.moving.restore import Contents, examine_backup, restore
from penstock.moving.tally import Refusal, Tally

__all__ = [
    "BackupInvalid",
    "Contents",
    "Kept",
    "MoveRefused",
    "Mover",
    "Refusal",
    "Tally",
    "back_up",
    "examine_backup",
    "restore",
    "survey",
]
