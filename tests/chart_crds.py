"""Small closed schemas of the custom resources that the chart renders: what of them we use, from their projects' references."""

from typing import Any

from jsonschema import Draft202012Validator

Schema = dict[str, Any]
STRING: Schema = {"type": "string", "minLength": 1}
TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
SECONDS: Schema = {"type": "integer", "minimum": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}
DURATION: Schema = {"type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$"}


def closed(required: Schema, **optional: Schema) -> Schema:
    """The schema of an object with these keys and no others."""
    return {"type": "object", "additionalProperties": False, "required": [*required], "properties": {**required, **optional}}


def many(items: Schema) -> Schema:
    """The schema of a list that is not empty."""
    return {"type": "array", "items": items, "minItems": 1}


SELECTOR = closed({"matchLabels": TEXTS})
SERVICE_REF = closed({"group": {"const": ""}, "kind": {"const": "Service"}, "name": STRING})
RULE = {
    "oneOf": [
        closed({"alert": STRING, "expr": STRING, "labels": TEXTS, "annotations": TEXTS}, **{"for": DURATION}),
        closed({"record": STRING, "expr": STRING}, labels=TEXTS),
    ]
}
RULES = closed({"groups": many(closed({"name": STRING, "rules": many(RULE)}, interval=DURATION))})
POLICY = closed({"type": {"enum": ["Percent", "Pods"]}, "value": SECONDS, "periodSeconds": SECONDS})
SCALING = closed({"policies": many(POLICY), "stabilizationWindowSeconds": COUNT}, selectPolicy={"enum": ["Max", "Min"]})
BACKEND = closed({"name": STRING, "port": SECONDS}, weight=COUNT)
PATH = closed({"type": {"enum": ["PathPrefix", "Exact"]}, "value": {"type": "string", "pattern": "^/"}})
MATCH = closed({"path": PATH}, headers=many(closed({"name": STRING, "value": STRING})))
SPECS: dict[tuple[str, str], Schema] = {
    ("monitoring.coreos.com/v1", "PodMonitor"): closed(
        {"selector": SELECTOR, "podMetricsEndpoints": many(closed({"port": STRING, "interval": DURATION}))},
        jobLabel=STRING,
        podTargetLabels=many(STRING),
    ),
    ("monitoring.googleapis.com/v1", "PodMonitoring"): closed(
        {"selector": SELECTOR, "endpoints": many(closed({"port": STRING, "interval": DURATION}))},
        targetLabels=closed({"fromPod": many(closed({"from": STRING}))}),
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): RULES,
    ("monitoring.googleapis.com/v1", "Rules"): RULES,
    ("keda.sh/v1alpha1", "ScaledObject"): closed(
        {
            "scaleTargetRef": closed({"name": STRING}),
            "minReplicaCount": COUNT,
            "maxReplicaCount": SECONDS,
            "pollingInterval": SECONDS,
            "fallback": closed({"failureThreshold": SECONDS, "replicas": SECONDS, "behavior": {"const": "currentReplicasIfHigher"}}),
            "advanced": closed(
                {"horizontalPodAutoscalerConfig": closed({"name": STRING, "behavior": closed({"scaleUp": SCALING, "scaleDown": SCALING})})}
            ),
            "triggers": many(closed({"type": STRING, "metricType": {"enum": ["AverageValue", "Value", "Utilization"]}, "metadata": TEXTS})),
        }
    ),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): closed(
        {
            "parentRefs": many(closed({"name": STRING, "namespace": STRING})),
            "rules": many(closed({"matches": many(MATCH), "backendRefs": many(BACKEND)})),
        },
        hostnames=many(STRING),
    ),
    ("networking.gke.io/v1", "HealthCheckPolicy"): closed(
        {
            "targetRef": SERVICE_REF,
            "default": closed(
                {
                    "checkIntervalSec": SECONDS,
                    "timeoutSec": SECONDS,
                    "healthyThreshold": SECONDS,
                    "unhealthyThreshold": SECONDS,
                    "config": closed({"type": {"const": "HTTP"}, "httpHealthCheck": closed({"port": SECONDS, "requestPath": STRING})}),
                }
            ),
        }
    ),
    ("networking.gke.io/v1", "GCPBackendPolicy"): closed(
        {
            "targetRef": SERVICE_REF,
            "default": closed({"timeoutSec": SECONDS, "connectionDraining": closed({"drainingTimeoutSec": SECONDS})}),
        }
    ),
}


def check_custom(found: dict[str, Any]) -> bool:
    """True for a custom resource that is valid, False for what is Kubernetes' own.

    Raises: jsonschema's ValidationError.
    """
    spec = SPECS.get((found["apiVersion"], found["kind"]))
    if spec is None:
        return False
    whole = closed({"apiVersion": STRING, "kind": STRING, "metadata": {"type": "object"}, "spec": spec})
    Draft202012Validator(whole).validate(found)
    return True
