"""The page of nodes, and the same over the API: on a file there is one."""

from __future__ import annotations

import os

from dashboard_kit import Shop

from holdfast.base.version import __version__


def test_a_file_has_one_node_and_the_page_says_so(running: Shop):
    page = running.http.get("/nodes").text
    assert f"process {os.getpid()}" in page
    assert "A database file has one owner" in page
    assert "leads" not in page.partition("<tbody>")[2]
    (node,) = running.http.get("/v1/nodes").json()["data"]
    assert (node["pid"], node["version"], node["state"], node["here"], node["ended_at"]) == (os.getpid(), __version__, "alive", True, None)
    assert node["started_at"] <= node["seen_at"]
