"""The HTTP API against its own OpenAPI document, and what each project may read of it, on a running lab."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from crawl import Reader, crawl, get_routes
from hypothesis import HealthCheck, Phase, given, settings
from running_lab import Lab, eventually, running
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

pytestmark = pytest.mark.e2e

DOCUMENT = "/api/v1/openapi.json"
PROJECTS = ("platform", "blue", "green")
EXAMPLES = int(os.environ.get("EXAMPLES", "3"))
"""Of each operation, for each caller. EXAMPLES=100: a long look."""
# What a schema cannot say (which webhook URLs are allowed, which names are taken) is refused with 422 or 409.
NOT_CHECKED = [positive_data_acceptance]


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab of our own: what is written there at random hurts nobody."""
    with running(Path(tmp_path_factory.mktemp("fuzzed")) / "state") as started:
        yield started


def known_ids(admin: Reader) -> dict[str, list[str]]:
    """Ids that are there, by the name that a route's parameter has."""
    faults = [each["id"] for each in admin.get("/api/v1/faults")["items"]]
    return {
        "fault": faults,
        "id": faults,
        "host": [each["host"] for each in admin.get("/api/v1/nodes")["items"]],
        "resource": [each["id"] for each in admin.get("/api/v1/resources")["items"]],
    }


@pytest.mark.seed("order schemathesis against the OpenAPI: no 5xx, every answer as the document says")
@pytest.mark.parametrize(
    ("who", "mode"),
    [
        ("admin", GenerationMode.POSITIVE),
        ("admin", GenerationMode.NEGATIVE),
        ("blue", GenerationMode.POSITIVE),
        pytest.param("nobody", GenerationMode.POSITIVE, marks=pytest.mark.slow),
        pytest.param("blue", GenerationMode.NEGATIVE, marks=pytest.mark.slow),
        pytest.param("nobody", GenerationMode.NEGATIVE, marks=pytest.mark.slow),
    ],
)
def test_every_operation_answers_as_its_document_says(fuzzed: Lab, who: str, mode: GenerationMode) -> None:
    secrets = fuzzed.secrets
    tokens = {"admin": secrets["admin_token"], "blue": secrets["projects"]["blue"]}
    headers = {"Authorization": f"Bearer {tokens[who]}"} if who in tokens else {}
    hook = f"http://127.0.0.1:{fuzzed.port('consumer')}/hear/x"
    with closing(Reader(fuzzed.client.url, secrets["admin_token"])) as admin, requests.Session() as session:
        session.trust_env = False
        schema = schemathesis.openapi.from_dict(admin.get(DOCUMENT))
        schema.config.update(base_url=fuzzed.client.url)
        there = known_ids(admin)
        statuses: Counter[int] = Counter()

        def check(case: schemathesis.Case) -> None:
            # Half of them meet something that is there: at random, nothing ever would.
            for name in (case.path_parameters or {}).keys() & there.keys():
                if there[name] and mode is GenerationMode.POSITIVE and sum(statuses.values()) % 2:
                    case.path_parameters[name] = there[name][0]
            if mode is GenerationMode.POSITIVE and isinstance(case.body, dict) and "url" in case.body:
                case.body["url"] = hook
            answer = case.call(session=session, headers=headers)
            statuses[answer.status_code] += 1
            case.validate_response(answer, excluded_checks=NOT_CHECKED)

        bounded = settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        operations = [result.ok() for result in schema.get_all_operations()]
        for operation in operations:
            if mode is GenerationMode.NEGATIVE and operation.path == "/healthz":
                continue  # it takes nothing that could be wrong
            if operation.path == "/api/v1/notices/stream" and who != "nobody":
                continue  # it never ends; tests/server/test_notice_stream.py listens to it
            bounded(given(operation.as_strategy(generation_mode=mode))(check))()
        assert len(operations) >= 15
        assert not [status for status in statuses if status >= 500]
        # It was let in, or it was not, to the end: otherwise all of this says nothing.
        admin.get("/api/v1/tokens")
        assert (statuses[404] == 0) == (who == "nobody"), statuses


@dataclass(frozen=True)
class Tenant:
    """A caller who is no administrator."""

    name: str
    project: str
    token: str


@dataclass(frozen=True)
class Troubled:
    """The shared lab after every project, and the infrastructure, had a fault; and all who may ask."""

    lab: Lab
    tenants: tuple[Tenant, ...]


@pytest.fixture(scope="module")
def troubled(lab: Lab) -> Iterator[Troubled]:
    """Kill one service of each project and a node process; let one subscription be out of reach."""
    with closing(Reader(lab.client.url, lab.client.token)) as admin:

        def put(path: str, body: dict[str, str]) -> dict[str, Any]:
            status, text = admin.call("PUT", f"/api/v1/{path}", body)
            assert status in (200, 201), text
            answer: dict[str, Any] = json.loads(text)
            return answer

        more = {
            "watch": ("viewer", "blue"),
            "page": ("consumer", "green"),
            "newcomer": ("operator", "empty"),
            "scraper": ("viewer", "infrastructure"),
        }
        tenants = [Tenant(project, project, lab.secrets["projects"][project]) for project in PROJECTS]
        for name, (role, project) in more.items():
            made = put(f"tokens/{name}", {"role": role, "project": project})
            tenants.append(Tenant(name, project, made["token"]))
        put("subscriptions/deaf-blue", {"url": "http://127.0.0.1:9/deaf", "project": "blue"})
        victims = {"platform": "web-n3", "blue": "guest-n3-a", "green": "guest-n3-b"}
        told = {name: len(lab.told(name, f"resource/{victim}")) for name, victim in victims.items()}
        lost = len(lab.told("on-call", "node/n1"))
        lab.kill_child("node-n1")
        for victim in victims.values():
            identity = lab.service(victim)
            assert identity is not None
            lab.kill(identity)
        for name, victim in victims.items():
            eventually(
                lambda n=name, v=victim: len(lab.told(n, f"resource/{v}")) == told[n] + 2,  # type: ignore[misc]
                20,
                f"{name} was told",
            )
        eventually(lambda: len(lab.told("on-call", "node/n1")) == lost + 2, 20, "on-call was told of n1")
        eventually(
            lambda: any(row["detail"] == "deaf-blue" for row in admin.get("/api/v1/status")["items"]),
            20,
            "deaf-blue cannot be told",
        )
        yield Troubled(lab, tuple(tenants))
        admin.call("DELETE", "/api/v1/subscriptions/deaf-blue")
        for name in more:
            admin.call("DELETE", f"/api/v1/tokens/{name}")


@dataclass(frozen=True)
class Belongings:
    """What an administrator sees, as (word, project that it belongs to)."""

    ids: frozenset[tuple[str, str]]
    texts: frozenset[tuple[str, str]]

    def foreign_ids(self, project: str) -> set[str]:
        """Ids of others which are not also an id of one's own."""
        return {word for word, owner in self.ids if owner != project} - self.own(project)

    def foreign(self, project: str) -> set[str]:
        """Everything that this project must not see."""
        return self.foreign_ids(project) | (
            {word for word, owner in self.texts if owner != project} - self.own(project)
        )

    def own(self, project: str) -> set[str]:
        return {word for word, owner in self.ids | self.texts if owner == project}


def belongings(lab: Lab, admin: Reader) -> Belongings:
    """Every id, name and text that belongs to one project, from the administrator's lists."""
    ids, texts = set(), set()
    with closing(sqlite3.connect(lab.directory / "server" / "homeostat.db")) as store:
        owned = "SELECT action.id, owner FROM action JOIN resource ON about = 'resource/' || resource.id"
        ids |= {(str(id), str(owner)) for id, owner in store.execute(owned)}
    assert ids, "the runners have acted"

    def items(path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = admin.get(f"/api/v1/{path}")["items"]
        assert found, path
        return found

    for row in items("resources"):
        ids |= {(row["id"], row["owner"]), (row["host"], row["owner"])}
        texts |= {(row["owner"], row["owner"]), (f"resource/{row['id']}", row["owner"])}
    for fault in items("faults?limit=1000"):
        ids.add((fault["id"], fault["owner"]))
        texts |= {
            (fault[name], fault["owner"]) for name in ("reason", "cleared_reason", "about") if fault[name]
        }
        for each in admin.get(f"/api/v1/explain/{fault['id']}")["items"]:
            ids.add((str(each["seq"]), "infrastructure"))  # by its number, only administrators ask
            texts.add((each["what"], fault["owner"] if "Fault" in each["kind"] else "several"))
    texts = {(text, owner) for text, owner in texts if owner != "several"}
    for row in items("subscriptions"):
        ids.add((row["name"], row["project"]))
    for row in items("notices?limit=500"):
        ids.add((row["key"], row["project"]))
    for row in items("tokens"):
        ids.add((row["name"], row["project"]))
    for row in items("nodes"):
        ids.add((row["host"], "infrastructure"))
        texts |= {(row[name], "infrastructure") for name in ("boot", "incarnation")}
    texts |= {("infrastructure", "infrastructure"), ("agent_lost", "infrastructure")}
    return Belongings(frozenset(ids), frozenset(texts))


def a_few_of_each(ids: frozenset[tuple[str, str]]) -> set[str]:
    """Ids to ask for: of each project at most two of one kind, or the crawl takes minutes."""
    kinds: dict[tuple[str, bool, str], list[str]] = {}
    for id, owner in sorted(ids):
        kind = "number" if id.isdecimal() else id[:2]
        kinds.setdefault((owner, ":" in id, kind), []).append(id)
    return {id for found in kinds.values() for id in found[:2]}


def seen_in(text: str, words: set[str]) -> set[str]:
    """Those words that stand in a text as whole words."""
    # Most stand nowhere in it, which is found out a hundred times sooner than by an expression of each.
    there = (word for word in words if word in text)
    return {word for word in there if re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text)}


def nothing_like(id: str) -> str:
    """An id of the same shape that nothing has."""
    return re.sub(r"[0-9]", "7", re.sub(r"[a-z]", "q", id))


@pytest.mark.seed("order no read across projects, on every GET route of the document")
def test_nobody_reads_what_belongs_to_another_project_or_to_the_infrastructure(troubled: Troubled) -> None:
    lab = troubled.lab
    with closing(Reader(lab.client.url, lab.client.token)) as admin:
        routes = get_routes(admin.get(DOCUMENT))
        assert len(routes) >= 12
        things = belongings(lab, admin)
        ids = a_few_of_each(things.ids)
        # The administrator reads each of them somewhere: so what follows says something.
        found = {answer.id for answer in crawl(admin, routes, ids) if answer.status == 200 and answer.id}
        hidden = {id for id in ids - found if ":" not in id} - {each.name for each in troubled.tenants}
        assert hidden == {"admin"}, "tokens and notices have no page of their own"
    for tenant in troubled.tenants:
        foreign, foreign_ids = things.foreign(tenant.project), things.foreign_ids(tenant.project)
        foreign_ids -= {tenant.name}
        # Where one's own resources are is theirs to know, and no number is a secret.
        free = {f"node/{host}" for host in things.own(tenant.project)} | {tenant.name}
        words = {word for word in foreign - free if not word.isdecimal()}
        read = 0
        of_nothing: dict[str, tuple[int, str]] = {}
        with closing(Reader(lab.client.url, tenant.token)) as reader:
            for answer in crawl(reader, routes, ids):
                where = f"{tenant} on {answer.route} {answer.id}: {answer.status} {answer.text}"
                said = answer.text.replace(answer.id, "ID") if answer.id else answer.text
                # A refusal may say whom it is for: that the project infrastructure exists is in the manual.
                leaked = seen_in(
                    said, words - {answer.id, *(["infrastructure"] if answer.status == 403 else [])}
                )
                assert not leaked, f"{leaked} leaked to {where}"
                read += answer.status == 200
                if answer.id in foreign_ids:
                    unknown = nothing_like(answer.id)
                    path = next(route for route in routes if route.path == answer.route).at(unknown)
                    if path not in of_nothing:  # many ids have the same shape
                        of_nothing[path] = reader.call("GET", path)
                    status, text = of_nothing[path]
                    assert (answer.status, said) == (status, text.replace(unknown, "ID")), where
                    assert status in (404, 422), where
        owns = tenant.project in PROJECTS
        assert read > (20 if owns else 5), f"{tenant} read hardly anything: {read}"


@pytest.mark.seed("order no read across projects: nothing without a token")
def test_without_a_token_only_the_health_can_be_read(troubled: Troubled) -> None:
    with closing(Reader(troubled.lab.client.url, "")) as anybody:
        status, text = anybody.call("GET", DOCUMENT)
        routes = get_routes(json.loads(text))
        assert status == 200
        answers = list(crawl(anybody, routes, ["f-0", "n1", "web-n1", "on-call"]))
    assert {each.route for each in answers if each.status != 401} == {"/healthz"}
    assert all(each.body["error"]["type"] == "not_authenticated" for each in answers if each.status == 401)


def test_nobody_but_a_viewer_gets_a_token_of_the_infrastructure(troubled: Troubled) -> None:
    with closing(Reader(troubled.lab.client.url, troubled.lab.client.token)) as admin:
        for role in ("operator", "consumer"):
            status, text = admin.call(
                "PUT", "/api/v1/tokens/spy", {"role": role, "project": "infrastructure"}
            )
            assert status == 422, text
            assert json.loads(text)["error"]["field"] == "role"
