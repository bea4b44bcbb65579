"""Send each committed round to an experiment tracker, as ``server.trackers`` says.

A tracker is one file and one line in ``TRACKERS``. What it is told are figures of the whole round:
no site's own accuracy, and nothing of any image, leaves through it.
"""

from server.run_folder.trackers.feed import TRACKERS, chosen, tracking
from server.run_folder.trackers.tracker import Tracker

__all__ = ["TRACKERS", "Tracker", "chosen", "tracking"]
