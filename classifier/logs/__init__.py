"""Readers: from a log of any known format to chunks of the event table.

`read_events` streams, `read_log` takes all of it. How each format is mapped stands in its module; the ways a line can
be turned down, and the file they are noted in, stand in `reading`.
"""

from classifier.logs.address import client_address
from classifier.logs.reader import FORMATS, STAMPS, read_events, read_log
from classifier.logs.reading import FileReading, Reading

__all__ = ["FORMATS", "STAMPS", "FileReading", "Reading", "client_address", "read_events", "read_log"]
