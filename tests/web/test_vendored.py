"""What others wrote is in the repository as they published it."""

from __future__ import annotations

import hashlib
import re

from homeostat.web.page_route import STATIC, asset_url, assets

VENDOR = STATIC / "vendor"


def checksums() -> dict[str, str]:
    lines = [line for line in (VENDOR / "CHECKSUMS").read_text().splitlines() if not line.startswith("#")]
    return {name: digest for digest, name in (line.split("  ") for line in lines)}


def test_every_vendored_file_is_the_published_one() -> None:
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDOR.iterdir()
        if path.name != "CHECKSUMS"
    }
    assert found == checksums()


def test_every_vendored_library_comes_with_its_licence() -> None:
    libraries = {re.split(r"-\d", name)[0].lower() for name in checksums() if not name.startswith("LICENSE")}
    assert libraries == {"htmx", "htmx-ext-sse", "uplot"}
    assert {f"LICENSE.{library}" for library in libraries} <= checksums().keys()


def test_an_address_changes_with_its_file_and_nothing_else_is_served() -> None:
    assert asset_url("app.css") == f"/console/static/{assets()['app.css'].version}/app.css"
    assert "vendor/CHECKSUMS" not in assets()
    assert not any(name.startswith("/") or ".." in name for name in assets())
