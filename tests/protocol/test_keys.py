"""Raw credentials: made, told apart, fingerprinted, hinted at."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.protocol.keys import ENTROPY_BYTES, Kind, fingerprint, hint, kind_of, mint

ENTROPY = bytes(range(ENTROPY_BYTES))


@pytest.mark.parametrize("kind", Kind)
def test_a_minted_key_is_told_by_its_kind(kind: Kind) -> None:
    """A minted key has the documented form and its kind is read back."""
    raw = mint(kind, ENTROPY)
    assert raw.startswith(f"hal_{kind}_")
    assert len(raw) == len(f"hal_{kind}_") + 38
    assert kind_of(raw) is kind


def test_minting_is_a_function_of_the_entropy() -> None:
    """The same entropy gives the same key, other entropy another: nothing is drawn here."""
    assert mint(Kind.TOKEN, ENTROPY) == mint(Kind.TOKEN, ENTROPY)
    assert mint(Kind.TOKEN, ENTROPY) != mint(Kind.TOKEN, ENTROPY[::-1])


def test_too_little_entropy_is_refused() -> None:
    """A key cannot be made from less randomness than it shows."""
    with pytest.raises(ValueError, match="32 random bytes"):
        mint(Kind.RELAY, ENTROPY[1:])


@given(st.integers(0, 45), st.characters(min_codepoint=33, max_codepoint=126))
def test_a_mistyped_key_is_no_key(place: int, character: str) -> None:
    """One wrong character anywhere is noticed by form or checksum."""
    raw = mint(Kind.RELAY, ENTROPY)
    mistyped = raw[:place] + character + raw[place + 1 :]
    assert (kind_of(mistyped) is Kind.RELAY) == (mistyped == raw)


@pytest.mark.parametrize("raw", ["", "hal_relay_", "hal_admin_" + "0" * 38, mint(Kind.CLIENT, ENTROPY) + "0", "ä" * 48])
def test_what_has_not_the_form_is_no_key(raw: str) -> None:
    """Anything else has no kind and no hint, however long it is."""
    assert kind_of(raw) is None
    assert hint(raw) == "not a Halyard key"


def test_hint_shows_prefix_and_last_four() -> None:
    """A hint tells keys apart in a log and reveals nothing that opens anything."""
    raw = mint(Kind.SERVER, ENTROPY)
    assert hint(raw) == f"hal_server_…{raw[-4:]}"


def test_fingerprint_is_sha256_in_hex() -> None:
    """The stored form is the SHA-256 of the raw key, also of bytes that are no text."""
    assert fingerprint("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert len(fingerprint("\udcff")) == 64
