"""Tokens that only this deployment can make, read or change.

A sealed token is authenticated encryption (libsodium's XSalsa20-Poly1305, through PyNaCl) of a small struct under a key
derived for one purpose, so that a token made for one thing is worth nothing for another. It is sealed rather than only
signed because tokens travel through clients and hold keyed hashes of clients: whoever could read those could choose
addresses that fall into the same slots of a profile table.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Generic, TypeVar

import msgspec
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from classifier.errors import InputError

SECRET_BYTES = 16
TOKEN_CHARACTERS = 1024

Content = TypeVar("Content", bound=msgspec.Struct)


def derive(secret: bytes, purpose: str) -> bytes:
    """A key of 32 bytes for one purpose, of at most 16 ASCII characters (BLAKE2b with a personalisation).

    InputError: the secret is too short to be one.
    """
    if len(secret) < SECRET_BYTES:
        raise InputError(
            f"the secret for challenges and passes has {len(secret)} bytes: give one of at least {SECRET_BYTES}, random"
        )
    return hashlib.blake2b(secret, digest_size=SecretBox.KEY_SIZE, person=purpose.encode()).digest()


class Seal(Generic[Content]):
    """Closes structs of one kind into URL-safe text, and opens such text again."""

    def __init__(self, secret: bytes, purpose: str, kind: type[Content]) -> None:
        self._box = SecretBox(derive(secret, purpose))
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(kind).decode

    def close(self, content: Content) -> str:
        """The content as a token of letters, digits, `-` and `_`."""
        return base64.urlsafe_b64encode(self._box.encrypt(self._encode(content))).decode().rstrip("=")

    def open(self, token: str) -> Content | None:
        """What was closed; None for any text that `close` did not make under the same secret and purpose."""
        if not token.isascii() or len(token) > TOKEN_CHARACTERS:
            return None
        try:
            sealed = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            return self._decode(self._box.decrypt(sealed))
        except (ValueError, TypeError, CryptoError, msgspec.MsgspecError):
            return None
