"""Usage has OpenAI's shape, under its path and ours."""

from __future__ import annotations

import time

import httpx
from api.live import error


def test_usage_of_nothing_is_empty_buckets_in_pages(client: httpx.Client) -> None:
    start = int(time.time()) // 3_600 * 3_600 - 5 * 3_600
    asked: dict[str, str | int] = {"start_time": start, "bucket_width": "1h", "limit": 4, "group_by": "model"}
    for path in ("/v1/usage", "/v1/organization/usage/completions"):
        page = client.get(path, params=asked).json()
        assert (page["object"], page["has_more"], page["next_page"]) == ("page", True, str(start + 4 * 3_600))
        assert [bucket["start_time"] for bucket in page["data"]] == [start + n * 3_600 for n in range(4)]
        assert page["data"][0] == {
            "object": "bucket", "start_time": start, "end_time": start + 3_600, "results": [],
        }  # fmt: skip
        rest = client.get(path, params=asked | {"page": page["next_page"]}).json()
        assert (len(rest["data"]), rest["has_more"], rest["next_page"]) == (2, False, None)


def test_what_can_not_be_asked_is_refused(client: httpx.Client) -> None:
    for asked in (
        {}, {"start_time": -1}, {"start_time": 0, "limit": 32}, {"start_time": 0, "limit": 0},
        {"start_time": 0, "bucket_width": "1m"}, {"start_time": 0, "group_by": "colour"},
        {"start_time": 0, "page": "x"}, {"start_time": 10**18},
    ):  # fmt: skip
        assert client.get("/v1/usage", params=asked).status_code == 400, asked
    error(client.get("/v1/usage", params={"start_time": 0, "models": ["false"]}), 404)
    assert httpx.get(f"{client.base_url}/v1/usage", params={"start_time": 0}, trust_env=False).status_code == 401


def test_an_operator_sees_a_tenants_usage_as_the_tenant_does(client: httpx.Client) -> None:
    start = int(time.time()) // 86_400 * 86_400
    asked: dict[str, str | int] = {"start_time": start, "limit": 2, "group_by": "model"}
    of_default = client.get("/v1/admin/tenants/default/usage", params=asked)
    assert of_default.json() == client.get("/v1/usage", params=asked).json()
    error(client.get("/v1/admin/tenants/nobody/usage", params=asked), 404)
    error(client.get("/v1/admin/tenants/default/usage", params=asked | {"limit": 32}), 400)
