"""The one exception for a wrong call or wrong data."""


class InputError(Exception):
  """Wrong arguments, files or data.

  The message is one line that says what is wrong, where (file, row), and how
  to mend it. `attr-jax` prints it to stderr and exits with status 2.
  """
