"""Scheduling policies: one file each (see `tandem.share.deciding.policy`)."""
