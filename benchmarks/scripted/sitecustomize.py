"""Control starts scripted engines in place of llama.cpp: Python imports this by itself where its folder is on the path.

Everything else is as it is: processes, probes, gateway, draining. The engine is `tests/shell/outside_engine.py`.
"""

from __future__ import annotations

import os
import sys

if os.environ.get("GONOGO_SCRIPTED_ENGINE") and any("gonogo.control" in word for word in sys.orig_argv):
    from gonogo.engines.llamacpp import LlamaCpp
    from gonogo.engines.model import Launch, Placement
    from gonogo.facts.model import ModelFacts
    from gonogo.spec import Spec

    def launch(_: LlamaCpp, spec: Spec, __: ModelFacts, placement: Placement) -> Launch:
        """One scripted engine on the port that the plan gave this replica."""
        program = os.environ["GONOGO_SCRIPTED_ENGINE"]
        return Launch(command=(sys.executable, program, str(placement.port), spec.service), environment={}, niceness=0)

    LlamaCpp.launch = launch  # type: ignore[method-assign]
