"""``python -m ssl_jax <verb>``: the same as the command ``ssl-jax <verb>``."""

from ssl_jax.cli.main import main

if __name__ == "__main__":
    main()
