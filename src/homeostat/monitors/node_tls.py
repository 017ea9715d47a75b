"""How the certificate of who is asked by TLS is verified. The rest of TLS is asyncio's own."""

from __future__ import annotations

import ssl

from homeostat.kernel.errors import BadInput


def context_of(cacert: str | None, *, verify: bool = True) -> ssl.SSLContext:
    """Certificates are verified by the CAs of this file and no others, without one by those of the system.

    BadInput when the file cannot be used. `verify` False: anybody is believed, as clouds.yaml may want it.
    """
    try:
        context = ssl.create_default_context(cafile=cacert)
    except OSError as error:  # an SSLError is one, too
        words = f"a file of CA certificates in PEM that can be read ({error.strerror or error})"
        raise BadInput("cacert", cacert, words) from None
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
