"""The closed lists of the audit log: what can have happened, and who can have done it."""

from __future__ import annotations

from typing import Mapping

KINDS: Mapping[str, str] = {
    "LeaseAcquired": "a control process took the lease; what the earlier holder still writes is refused",
    "ControlStarted": "a control process began its reconcile loop",
    "ControlStopped": "a control process ended its reconcile loop",
    "RevisionAdded": "a service was asked for, or asked for in another way: a new revision",
    "RevisionAskedAgain": "a revision that was rejected, replaced or being removed was asked for again",
    "RevisionProbed": "a revision was asked through the front door",
    "RevisionPromoted": "a service's requests go to this revision from now on",
    "RevisionRejected": "a revision will not serve; the reason stands in the detail",
    "RemovalRequested": "a service is to be taken down",
    "ServiceForgotten": "nothing of a removed service runs any more",
    "KeyAdded": "an API key was made; its text is kept nowhere",
    "KeyChanged": "the limits or the priority of an API key were changed",
    "KeyRevoked": "an API key was revoked",
    "ActionStarted": "an action of a plan was begun",
    "ActionFinished": "an action of a plan was done",
    "ActionFailed": "an action of a plan could not be done",
    "ActionAbandoned": "an action was left open by a control process that ended; the next plan decides anew",
    "PlanBlocked": "a plan was not carried out because findings blocked it",
    "PlanRefused": "a plan was not carried out because the world had moved since its observation",
    "FindingsChanged": "a check answers otherwise than before",
    "ProcessAdopted": "a running process was found and taken over by a new control process",
    "ReplicaReady": "a replica generated its first token",
    "ReplicaHung": "a replica neither answered nor worked",
    "ReplicaDied": "a replica ended without being asked to",
    "StreamContinued": "a replica was lost in the middle of a stream, and another one went on with it",
    "ServerRecovered": "the gateway's health checks found an external server well",
    "ServerFailed": "the gateway's health checks found an external server well no more",
    "FallbackBegun": "no replica of a serving revision is well, so that its hosted API answers",
    "FallbackEnded": "a replica is well again, so that nothing is sent to the hosted API any more",
    "GatewayDied": "Envoy ended without being asked to",
    "PolicyDied": "a policy server ended without being asked to",
    "SnapshotAcknowledged": "Envoy acknowledged all of a published configuration",
    "SnapshotRefused": "Envoy refused a published configuration; its words stand in the detail",
    "ServiceProven": "every check of the deploy stage passed through the front door",
    "EnvironmentCollected": "the environment of an engine that nobody needed was taken away",
    "CertificateMade": "a certificate was made or renewed",
    "ClockJumped": "the wall clock moved by more than time passed",
}
"""Every kind of event, in the past tense, with what it means."""

ACTORS: Mapping[str, str] = {
    "control": "the reconcile loop",
    "cli": "a command that a person ran",
    "api": "the control process on behalf of a caller of its HTTP API",
    "keeper": "the process that restarts control",
    "policy": "a policy server",
    "tasks": "the queue, on behalf of a key's owner",
}
"""Which part of gonogo wrote; the principal says on whose behalf."""
