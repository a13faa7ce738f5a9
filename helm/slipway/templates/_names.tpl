{{/* Objects are called RELEASE-WHAT: a release's name has at most 53 characters, so these have at most 63. */}}
{{- define "slipway.selector" -}}
app.kubernetes.io/name: slipway
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end }}

{{- define "slipway.labels" -}}
app.kubernetes.io/name: slipway
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* The tracks that run, as words. */}}
{{- define "slipway.tracks" -}}
stable{{ if .Values.canary.enabled }} canary{{ end }}
{{- end }}

{{/*
What a track runs, as JSON: the keys image and model of the values, with the canary's own ones laid over. The stable track's digest is
not another model's, nor that of what another image holds.
*/}}
{{- define "slipway.runs" -}}
{{- $image := deepCopy .root.Values.image }}
{{- $model := deepCopy .root.Values.model }}
{{- if eq .track "canary" }}
{{- $own := .root.Values.canary }}
{{- if or $own.image.tag $own.image.digest }}{{ $image = omit $image "tag" "digest" }}{{ end }}
{{- if or $own.model (and $own.image (eq $model.source "baked")) }}{{ $model = omit $model "digest" }}{{ end }}
{{- $image = mergeOverwrite $image (deepCopy $own.image) }}
{{- $model = mergeOverwrite $model (deepCopy $own.model) }}
{{- end }}
{{- $tag := $image.tag | default .root.Chart.AppVersion }}
{{- $reference := empty $image.digest | ternary (printf "%s:%s" $image.repository $tag) (printf "%s@%v" $image.repository $image.digest) }}
{{- dict "image" $reference "model" $model | toJson }}
{{- end }}
