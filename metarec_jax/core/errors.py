"""Errors that a user can resolve, and the exception for a signal to stop."""

import signal


class MetarecError(Exception):
    """A mistake in the input: the message names the value, the place and the remedy.

    The command line prints the message without a traceback and exits with status 2.
    """


class Stopped(BaseException):
    """A signal stopped the process; work in progress has been saved or cleaned up.

    Args:
        number: the signal.
    """

    def __init__(self, number: signal.Signals):
        super().__init__(number)
        self.number = number
