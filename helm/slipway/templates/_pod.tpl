{{/* Seconds that a pod has to end: the drain delay, 30 in which requests are finished (DRAIN_S of the server), 15 for TorchServe. */}}
{{- define "slipway.graceSeconds" -}}
{{- add .Values.drainDelaySeconds 30 15 }}
{{- end }}

{{- define "slipway.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "slipway.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "slipway.pod" -}}
{{- $values := .root.Values }}
{{- $runs := include "slipway.runs" . | fromJson }}
serviceAccountName: {{ .root.Release.Name }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ include "slipway.graceSeconds" .root }}
securityContext:
  {{- include "slipway.podSecurity" . | nindent 2 }}
{{- with $values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  {{- range $key, $otherwise := dict "topology.kubernetes.io/zone" "ScheduleAnyway" "kubernetes.io/hostname" "DoNotSchedule" }}
  - topologyKey: {{ $key }}
    whenUnsatisfiable: {{ $otherwise }}
    maxSkew: 1
    nodeTaintsPolicy: Honor # else a node that is being drained counts, and its pods stay pending
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels:
        {{- include "slipway.selector" $.root | nindent 8 }}
        track: {{ $.track }}
  {{- end }}
{{- if eq $values.model.source "gcs" }}
initContainers:
  - name: fetch
    image: {{ $runs.image }}
    imagePullPolicy: {{ $values.image.pullPolicy }}
    terminationMessagePolicy: FallbackToLogsOnError
    command: [python3, /scripts/fetch.py]
    args:
      - {{ $runs.model.uri | quote }}
      - {{ $runs.model.path | quote }}
      - {{ required "canary.model wants a digest too with model.source gcs" $runs.model.digest | quote }}
    securityContext:
      {{- include "slipway.containerSecurity" . | nindent 6 }}
    resources:
      requests: {cpu: 100m, memory: 64Mi}
      limits: {cpu: "1", memory: 256Mi}
    volumeMounts:
      - {name: model, mountPath: {{ dir $runs.model.path }}}
      - {name: scripts, mountPath: /scripts, readOnly: true}
{{- end }}
containers:
  - name: slipway
    image: {{ $runs.image }}
    imagePullPolicy: {{ $values.image.pullPolicy }}
    terminationMessagePolicy: FallbackToLogsOnError # why it ended is in the pod's status, also when its log is gone
    args:
      - serve
      - {{ $runs.model.path | quote }}
      - --host=0.0.0.0
      - --port=8080
      - --internal-port=9090
      - --drain-delay={{ $values.drainDelaySeconds }}
      - --objective={{ $values.latencyObjectiveSeconds }}
      - --log={{ $values.logFormat }}
      {{- with $runs.model.digest }}
      - --digest={{ . }}
      {{- end }}
      {{- if $values.keys.existingSecret }}
      - --keys=/keys/keys
      {{- end }}
    env:
      - {name: TMPDIR, value: /tmp}
      - {name: HOME, value: /tmp}
    ports:
      - {name: http, containerPort: 8080}
      - {name: metrics, containerPort: 9090}
    startupProbe:
      httpGet: {path: /readyz, port: http}
      periodSeconds: 2
      timeoutSeconds: 2
      failureThreshold: {{ divf $values.startupSeconds 2 | ceil | int }}
    readinessProbe: # the golden images predict as recorded
      httpGet: {path: /readyz, port: http}
      periodSeconds: 5
      timeoutSeconds: 3
      failureThreshold: 2
    livenessProbe: # the process answers; when its workers stay away for a minute it ends by itself
      httpGet: {path: /healthz, port: http}
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 6
    resources:
      {{- toYaml $values.resources | nindent 6 }}
    securityContext:
      {{- include "slipway.containerSecurity" . | nindent 6 }}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
      {{- if $values.keys.existingSecret }}
      - {name: keys, mountPath: /keys, readOnly: true}
      {{- end }}
      {{- if ne $values.model.source "baked" }}
      - {name: model, mountPath: {{ dir $runs.model.path }}, readOnly: true}
      {{- end }}
volumes:
  - {name: tmp, emptyDir: {sizeLimit: 1Gi}}
  {{- with $values.keys.existingSecret }}
  - name: keys
    secret:
      secretName: {{ . }}
      defaultMode: 0440
      items: [{key: {{ $values.keys.key }}, path: keys}]
  {{- end }}
  {{- if eq $values.model.source "gcs" }}
  - {name: model, emptyDir: {sizeLimit: 4Gi}}
  - {name: scripts, configMap: {name: {{ .root.Release.Name }}-scripts}}
  {{- else if eq $values.model.source "imageVolume" }}
  - {name: model, image: {reference: {{ $runs.model.image | quote }}, pullPolicy: {{ $values.image.pullPolicy }}}}
  {{- end }}
{{- end }}
