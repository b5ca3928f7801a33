"""`python -m attr_jax COMMAND` is the same as `attr-jax COMMAND`."""

from attr_jax.cli import main

main()
