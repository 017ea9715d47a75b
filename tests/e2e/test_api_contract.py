"""The HTTP API against its own OpenAPI document, and what each project may read of it, on a running lab."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import requests
import schemathesis
from crawl import Reader
from hypothesis import HealthCheck, Phase, given, settings
from running_lab import Lab, running
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

pytestmark = pytest.mark.e2e

DOCUMENT = "/api/v1/openapi.json"
PROJECTS = ("platform", "blue", "green")
EXAMPLES = int(os.environ.get("EXAMPLES", "15"))
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
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("who", ["admin", "blue", "nobody"])
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
            bounded(given(operation.as_strategy(generation_mode=mode))(check))()
        assert len(operations) >= 15
        assert not [status for status in statuses if status >= 500]
        # It was let in, or it was not, to the end: otherwise all of this says nothing.
        admin.get("/api/v1/tokens")
        assert (statuses[404] == 0) == (who == "nobody"), statuses
