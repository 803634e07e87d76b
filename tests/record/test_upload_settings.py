"""Settings of the upload that can't be: refused by `init`, without showing a secret."""

from __future__ import annotations

import pytest
from record.upload_programs import SECRET


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"url": "https://h", "ca_file": "/does/not/exist"}, "/does/not/exist"),
        ({"url": "https://h", "ca_file": "/dev/null"}, "no certificate of an authority in /dev/null"),
        ({"url": f"http://user:{SECRET}@h"}, "credentials in a url get into logs"),
        ({"url": f"http://user:{SECRET}@h:x"}, "the port is no number"),
        ({"url": "http://h/?x=1"}, "a query"),
        ({"url": "http://h:70000"}, "the port is no number"),
        ({"url": "http://::1"}, "the port is no number"),
        ({"url": "http://server.example:9000 "[:-1] + "\u00e9"}, "only printable ascii"),
        ({"proxy": f"socks5://user:{SECRET}@h"}, "neither http nor https"),
        ({"headers": {"content-length": "1"}}, "the recorder's own to say"),
        ({"headers": {"x-key": f"{SECRET}\n"}}, "the value of header x-key holds more than printable ascii"),
        ({"headers": {"x y": SECRET}}, "no name of a header"),
        ({"headers": {"Authorization": SECRET}, "api_key": SECRET}, "only one can be sent"),
        ({"api_key": SECRET + "\r\n"}, "only printable ascii"),
    ],
)
def test_settings_of_the_upload_that_can_not_be(run, server, settings, told):
    done = run(
        f"""
        try: mm.init(**{settings!r})
        except ValueError as error: print(error)
        assert mm.status() is None
        """
    )
    assert told in done.stdout
    assert SECRET not in done.stdout
