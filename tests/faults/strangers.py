"""Strangers: nobody sees another's (I5), and a create that was repeated made one object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from e2e.live import Client
from faults.accepted import Accepted


def strangers(tenant: str, client: Client, accepted: Sequence[Accepted]) -> list[str]:
    """What a tenant sees that is not its own, or does not see that is."""
    wrong = []
    for kind, path in (("batch", "batches"), ("job", "jobs")):
        own = {one.id for one in accepted if (one.tenant, one.kind) == (tenant, kind)}
        seen = listed(client, path)
        wrong += [f"{tenant} was never told of {id}, and it is in its list" for id in sorted(set(seen) - own)]
        wrong += [f"{id} was accepted for {tenant}, and its list lacks it" for id in sorted(own - set(seen))]
        wrong += [f"{id} is {count} times in the list of {tenant}" for id, count in Counter(seen).items() if count > 1]
        others = [one.id for one in accepted if one.kind == kind and one.tenant != tenant]
        for id in others[:3] + others[-3:]:
            for answer in (client.http.get(f"/{path}/{id}"), client.http.post(f"/{path}/{id}/cancel")):
                if answer.status_code != 404:
                    wrong.append(f"{tenant} asks for {id} of another tenant and hears {answer.status_code}")
    return wrong


def listed(client: Client, path: str) -> list[str]:
    """The ids of all batches or jobs (`path`) that a tenant sees, in order."""
    found: list[str] = []
    more = True
    while more:
        page = client.http.get(f"/{path}", params={"limit": 100, **({"after": found[-1]} if found else {})}).json()
        found += [one["id"] for one in page["data"]]
        more = page["has_more"]
    return found
