{{/* Renders nothing: ends the rendering when values contradict each other. What one value alone may be stands in the schema. */}}
{{- define "slipway.checks" -}}
{{- $values := .Values }}
{{- $provider := $values.autoscaling.provider }}
{{- $backend := $values.metrics.backend }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" .Release.Name) }}
{{- fail (printf "got the release name %s: Services take it, so it wants a letter, then letters, digits, dashes" .Release.Name) }}
{{- end }}
{{- if and (ne $provider "none") (gt (int $values.replicas.min) (int $values.replicas.max)) }}
{{- fail (printf "got replicas.min %v above replicas.max %v" $values.replicas.min $values.replicas.max) }}
{{- end }}
{{- if and (eq $provider "hpa-gmp") (ne $backend "gmp") }}
{{- fail (printf "autoscaling.provider hpa-gmp reads what metrics.backend gmp collects, got %s" $backend) }}
{{- end }}
{{- if and (eq $provider "prometheus-adapter") (eq $backend "gmp") }}
{{- fail "autoscaling.provider prometheus-adapter reads a Prometheus of your own, but metrics.backend is gmp: take hpa-gmp" }}
{{- end }}
{{- if and (eq $provider "keda") (eq $backend "none") }}
{{- fail "autoscaling.provider keda asks for series as metrics.backend prometheus-operator or gmp labels them, got none" }}
{{- end }}
{{- if and $values.alerts.enabled (eq $backend "none") }}
{{- fail "alerts.enabled wants metrics.backend prometheus-operator or gmp: nobody would evaluate them" }}
{{- end }}
{{- if and $values.canary.weight (not (and $values.canary.enabled $values.route.enabled)) }}
{{- fail "canary.weight wants canary.enabled and route.enabled: without both nothing gets to the canary" }}
{{- end }}
{{- if and $values.route.gkePolicies (not $values.route.enabled) }}
{{- fail "route.gkePolicies wants route.enabled: the policies are for the Gateway's load balancer" }}
{{- end }}
{{- if and (eq $values.model.source "imageVolume") (semverCompare "<1.33.0-0" .Capabilities.KubeVersion.Version) }}
{{- fail (printf "model.source imageVolume wants Kubernetes 1.33 or newer, got %s: take baked" .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- end }}
