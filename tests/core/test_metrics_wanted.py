"""How many replicas a service should have, as the metrics tell it."""

from __future__ import annotations

from dataclasses import replace

from gonogo.control.metrics import _wanted
from gonogo.spec import Revision, Spec
from gonogo.spec.model import Replicas
from tests.core import worlds


def test_own_replicas_are_as_asked_and_those_of_others_are_all_that_the_spec_names() -> None:
    own = worlds.service(Revision(number=1, spec=Spec(service="own", model="m.gguf", replicas=Replicas(min=3, max=3))))
    urls = ["http://127.0.0.1:9101", "http://127.0.0.1:9102"]
    others = worlds.service(
        Revision(
            number=1, spec=Spec.model_validate({"service": "others", "model": "m", "replicas": {"external": urls}})
        )
    )
    gone = replace(worlds.service(Revision(number=1, spec=Spec(service="gone", model="m.gguf"))), removed=True)
    assert _wanted((own, others, gone), worlds.world()) == {"own": 3, "others": 2}
